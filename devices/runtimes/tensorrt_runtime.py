"""Runs engines of TensorRT and TensorRT for RTX on this machine's NVIDIA GPU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from devices.cache_dir import default_cache_dir
from devices.errors import CompileError, DeviceError, EngineError
from devices.runtimes.cuda_memory import open_cuda
from devices.runtimes.engine_cache import EngineCache
from devices.runtimes.engine_header import has_engine_header, read_engine_header
from devices.runtimes.protocol import Runtime, Session
from devices.runtimes.record import RuntimeRecord
from devices.runtimes.tensorrt_bindings import FAMILIES, Features, load_bindings
from devices.runtimes.tensorrt_builder import (
    TensorRTBuilder,
    build_small_convolution,
    known_capabilities,
)
from devices.runtimes.tensorrt_session import TensorRTSession, deserialize

BUILD_FORMAT = 1
"""Increased when engines are built differently: cached ones of another number are not used."""


class TensorRTRecord(RuntimeRecord):
    """Record of TensorRT or TensorRT for RTX; `family` is a key of `FAMILIES`."""

    endings = (".onnx", ".engine")
    compiles = True

    def __init__(self, family: str) -> None:
        self.name = family
        self.packages = FAMILIES[family].packages
        self.install = FAMILIES[family].install
        self.least_version = FAMILIES[family].least_version
        self._portable = FAMILIES[family].portable
        if self._portable:
            self.carried = ".engine"

    def open(self, threads: int, batch: int, provider: str | None) -> Runtime:
        """Open the GPU, ignoring threads; see `RuntimeRecord.open`."""
        return TensorRTRuntime(self.name)

    def installed_version(self) -> str:
        """See `RuntimeRecord.installed_version`."""
        return str(load_bindings(self.name).__version__)

    def number_format(self, precision: str, *_: Any, **__: Any) -> str:
        """Integers are signed, without zero points; see `RuntimeRecord.number_format`."""
        return "s8s8-symmetric" if precision == "int8" else precision

    def loads(self, path: Path) -> bool:
        """Distinguish the engines of the families by header; see `RuntimeRecord.loads`."""
        if path.suffix == ".engine" and has_engine_header(path):
            read_engine_header(path)
            return self._portable
        return path.suffix == ".onnx" or (path.suffix == ".engine" and not self._portable)

    def computes_on(self, provider: str | None) -> Literal["processor", "nvidia", "other"]:
        """See `RuntimeRecord.computes_on`."""
        return "nvidia"


class TensorRTRuntime:
    """Runs `.engine` files on this machine's GPU, and ONNX files by building engines for it.

    Each run is launched as one CUDA graph and timed on the GPU between two events; inputs and
    outputs stay in GPU memory. Whether CUDA graphs work is tested once with a small network, so
    that all engines of a table run the same way: an engine that cannot be captured where the test
    could is refused.

    Args:
        family: `tensorrt` (10 and 11) or `tensorrt-rtx`.
        cache_dir: Built engines are cached in its folder `engines`; `default_cache_dir` if None.
        cuda_package: `pycuda` or `cuda-bindings`; the first that is installed if None.

    Raises:
        RuntimeMissingError: If TensorRT, or a package for GPU memory, is not installed.
        DeviceError: If there is no driver, no GPU, or the family does not support the GPU.
        EngineError: If not even a small network can be built and run.
    """

    def __init__(
        self, family: str, cache_dir: Path | None = None, cuda_package: str | None = None
    ) -> None:
        self.name = family
        self._trt = load_bindings(family)
        self.version: str = self._trt.__version__
        self._cuda = open_cuda(cuda_package)
        supported = known_capabilities(self._trt) if Features.of(self._trt).absent_gpus else None
        if supported is not None and self._capability not in supported:
            raise DeviceError(
                f"a GPU that TensorRT for RTX {self.version} supports: {', '.join(supported)}",
                f"{self._cuda.gpu} ({self._capability})",
                "Use TensorRT instead: device.name=local-gpu.",
            )
        self._cache = EngineCache((cache_dir or default_cache_dir()) / "engines")
        self._with_graph = self._can_capture()
        self.settings: dict[str, Any] = {
            "cuda_package": self._cuda.package,
            "cuda_graph": self._with_graph,
            "timed_by": "events on the GPU",
            "waiting": "spinning",
            "transfers": "excluded",
            "types": "the ONNX file's",
            "tf32": "allowed",
        }

    def load(self, path: Path) -> Session:
        """Load an engine, or build a model with fixed shapes; see `Runtime.load`."""
        if path.suffix not in TensorRTRecord.endings:
            endings = " and ".join(TensorRTRecord.endings)
            raise EngineError(f"TensorRT loads {endings} files", str(path), "Pass one.")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise EngineError(
                f"TensorRT must be able to load {path}",
                error.strerror or str(error),
                "Export or build it first.",
            ) from error
        if path.suffix == ".engine":
            self._check_header(path)
            loaded = deserialize(self._trt, content)
            return self._opened(loaded, path, self._with_graph, self._key(content))
        key = self._key(content)
        timing_cache = self._cache.folder / f"{self._key(b'')}.timing"
        builder = TensorRTBuilder(self.name, timing_cache=timing_cache)
        return self._session(key, path, self._with_graph, partial(builder.build, path))

    def _session(
        self, key: str, path: Path, with_graph: bool, build: Callable[[Path], None]
    ) -> Session:
        """A session of the cached engine of a key; the engine is built if none loads."""
        loaded = None
        plan = self._cache.get(key)
        if plan is not None:
            try:
                loaded = deserialize(self._trt, plan)
            except EngineError:
                loaded = None  # built for another driver, say
        try:
            if loaded is None:
                loaded = deserialize(self._trt, self._cache.build(key, build))
            return self._opened(loaded, path, with_graph, key)
        except CompileError as error:
            raise EngineError(error.required, error.found, error.remedy) from error

    def _opened(
        self, loaded: tuple[Any, Any], path: Path, with_graph: bool, key: str
    ) -> TensorRTSession:
        """A session that caches the code TensorRT compiles while loading."""
        compiled = self._cache.folder / f"{key}.compiled"
        return TensorRTSession(self._trt, loaded, self._cuda, path, with_graph, compiled)

    def _key(self, content: bytes) -> str:
        """Digest of the content and everything else that determines an engine."""
        gpu = [self._cuda.gpu, self._cuda.compute_capability]
        made_with = json.dumps([BUILD_FORMAT, self.name, self.version, *gpu])
        return hashlib.sha256(made_with.encode() + b"\n" + content).hexdigest()[:32]

    def _check_header(self, path: Path) -> None:
        """Refuse an engine for another version or GPU; only RTX engines have a readable header."""
        if not Features.of(self._trt).absent_gpus:
            return  # TensorRT reports it when loading
        header = read_engine_header(path)
        version, capabilities = header.runtime_version, header.compute_capabilities
        if version != self.version or self._capability not in capabilities:
            raise EngineError(
                f"an engine for TensorRT for RTX {self.version} and {self._capability}, which is "
                f"{self._cuda.gpu}",
                f"{path} for {version} and {', '.join(capabilities)}",
                "Build it for those, or load the .onnx file instead.",
            )

    @property
    def _capability(self) -> str:
        return "SM" + self._cuda.compute_capability.replace(".", "")

    def _can_capture(self) -> bool:
        """Whether a CUDA graph can capture a small network; raises if it cannot even run."""
        trial, key = Path("a small network"), self._key(b"trial")
        build = partial(build_small_convolution, self.name)
        self._session(key, trial, False, build).close()
        try:
            self._session(key, trial, True, build).close()
        except EngineError:
            return False
        return True
