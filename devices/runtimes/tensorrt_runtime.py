"""Running engines of TensorRT and TensorRT for RTX on the NVIDIA GPU of this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
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
"""Counts changes of how engines are built: cached ones of another number are not used."""


class TensorRTRecord(RuntimeRecord):
    """What TensorRT, or TensorRT for RTX, can do.

    Args:
        family: A key of `FAMILIES`; the name of the runtime.
    """

    endings = (".onnx", ".engine")
    compiles = True

    def __init__(self, family: str) -> None:
        self.name = family
        self.packages = FAMILIES[family].packages
        self.install = FAMILIES[family].install
        self._portable = FAMILIES[family].portable
        if self._portable:
            self.carried = ".engine"

    def open(self, threads: int, batch: int, provider: str | None) -> Runtime:
        """Open the GPU, which decides on threads itself; see `RuntimeRecord.open`."""
        return TensorRTRuntime(self.name)

    def installed_version(self) -> str:
        """Its version; see `RuntimeRecord.installed_version`."""
        return str(load_bindings(self.name).__version__)

    def number_format(self, precision: str, *_: Any, **__: Any) -> str:
        """Integers are signed, without zero points; see `RuntimeRecord.number_format`."""
        return "s8s8-symmetric" if precision == "int8" else precision

    def loads(self, path: Path) -> bool:
        """Engines are told apart by their header; see `RuntimeRecord.loads`."""
        if path.suffix == ".engine" and has_engine_header(path):
            read_engine_header(path)
            return self._portable
        return path.suffix == ".onnx" or (path.suffix == ".engine" and not self._portable)

    def computes_on(self, provider: str | None) -> Literal["processor", "nvidia", "other"]:
        """Always an NVIDIA GPU; see `RuntimeRecord.computes_on`."""
        return "nvidia"


class TensorRTRuntime:
    """Builds ONNX files for the GPU of this machine and runs them; runs `.engine` files as well.

    Each run is timed on the GPU between two events, launched as one CUDA graph; inputs are there
    before, outputs stay there. Whether graphs can be captured here is tried out once, with a small
    network, so that all engines of a table are run alike: one that cannot be captured where others
    can is refused.

    Args:
        family: `tensorrt` (10 and 11) or `tensorrt-rtx`.
        cache_dir: Keeps what was built, below `engines`; see `default_cache_dir` for None.
        cuda_package: `pycuda` or `cuda-bindings`; the first that is installed if None.

    Raises:
        RuntimeMissingError: If TensorRT, or a package for the GPU's memory, is not installed.
        DeviceError: If there is no driver, no GPU, or one of a kind that the family is not for.
        EngineError: If not even a small network can be built and run.
    """

    def __init__(
        self, family: str, cache_dir: Path | None = None, cuda_package: str | None = None
    ) -> None:
        self.name = family
        self._trt = load_bindings(family)
        self.version: str = self._trt.__version__
        self._cuda = open_cuda(cuda_package)
        self._check_gpu()
        self._cache = EngineCache((cache_dir or default_cache_dir()) / "engines")
        self._with_graph = self._can_capture()

    @property
    def settings(self) -> dict[str, Any]:
        """How engines are run; see `Runtime.settings`."""
        return {
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
        return self._session(key, path, self._with_graph, lambda engine: self._build(path, engine))

    def _session(
        self, key: str, path: Path, with_graph: bool, build: Callable[[Path], None]
    ) -> Session:
        """A session of the cached engine of a key; of a new one if there is none that loads."""
        loaded = None
        plan = self._cache.get(key)
        if plan is not None:
            try:
                loaded = deserialize(self._trt, plan)
            except EngineError:
                loaded = None  # of another driver, say: built again
        try:
            if loaded is None:
                loaded = deserialize(self._trt, self._cache.build(key, build))
            return self._opened(loaded, path, with_graph, key)
        except CompileError as error:
            if isinstance(error.__cause__, OSError):  # of the disk, not of this model
                raise DeviceError(error.required, error.found, error.remedy) from error
            raise EngineError(error.required, error.found, error.remedy) from error

    def _opened(
        self, loaded: tuple[Any, Any], path: Path, with_graph: bool, key: str
    ) -> TensorRTSession:
        """A session that keeps what TensorRT compiles as it loads the engine of a key."""
        compiled = self._cache.folder / f"{key}.compiled"
        return TensorRTSession(self._trt, loaded, self._cuda, path, with_graph, compiled)

    def _build(self, onnx_path: Path, engine_path: Path) -> None:
        timing_cache = self._cache.folder / f"{self._key(b'')}.timing"
        TensorRTBuilder(self.name, timing_cache=timing_cache).build(onnx_path, engine_path)

    def _key(self, content: bytes) -> str:
        """Digest of all that decides what an engine is."""
        gpu = [self._cuda.gpu, self._cuda.compute_capability]
        made_with = json.dumps([BUILD_FORMAT, self.name, self.version, *gpu])
        return hashlib.sha256(made_with.encode() + b"\n" + content).hexdigest()[:32]

    def _check_header(self, path: Path) -> None:
        """Say what an engine was built for if that is something else; RTX's headers can be read."""
        if not Features.of(self._trt).absent_gpus:
            return  # TensorRT says it itself as it loads the engine
        header = read_engine_header(path)
        capability = self._capability
        found = f"{path} for {header.runtime_version} and {', '.join(header.compute_capabilities)}"
        if header.runtime_version != self.version or (
            capability not in header.compute_capabilities
        ):
            raise EngineError(
                f"an engine for TensorRT for RTX {self.version} and {capability}, which is "
                f"{self._cuda.gpu}",
                found,
                "Build it for those, or load the .onnx file instead.",
            )

    @property
    def _capability(self) -> str:
        return "SM" + self._cuda.compute_capability.replace(".", "")

    def _check_gpu(self) -> None:
        if not Features.of(self._trt).absent_gpus:
            return
        known = known_capabilities(self._trt)
        if self._capability not in known:
            raise DeviceError(
                f"a GPU that TensorRT for RTX {self.version} is for: {', '.join(known)}",
                f"{self._cuda.gpu} ({self._capability})",
                "Use TensorRT on it: device.name=local-gpu.",
            )

    def _can_capture(self) -> bool:
        """Whether the runs of a small network can be captured; raises if they fail without."""
        trial, key = Path("a small network"), self._key(b"trial")

        def build(engine_path: Path) -> None:
            build_small_convolution(self.name, engine_path)

        self._session(key, trial, False, build).close()
        try:
            self._session(key, trial, True, build).close()
        except EngineError:
            return False
        return True
