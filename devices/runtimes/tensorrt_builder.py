"""Builds engines of TensorRT and TensorRT for RTX, for the present GPU or for absent ones."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from devices.errors import CompileError
from devices.files import replacing
from devices.runtimes.cuda_memory import NO_GPU_REMEDY
from devices.runtimes.onnx_layers import name_layer
from devices.runtimes.tensorrt_bindings import Features, collected_errors, load_bindings

_REMEDY = "Change the model, its precision or the compute capabilities."


class TensorRTBuilder:
    """Compiles ONNX files to `.engine` files of TensorRT or TensorRT for RTX.

    Types are those of the ONNX file: for half precision pass a model in half precision.

    Args:
        family: `tensorrt` or `tensorrt-rtx`.
        compute_capabilities: GPU generations that the engine must run on, present or not, such as
            `["SM75", "SM86", "SM89", "SM120"]`; TensorRT for RTX only. SM75 has no matrix product
            in fp32. None builds for the present GPU.
        timing_cache: Caches the measured time of each kernel, so that equal layers get the same
            kernel in all engines and builds are faster. Unused by TensorRT for RTX, which chooses
            kernels without timing.

    Raises:
        RuntimeMissingError: If the bindings are not installed.
        CompileError: If a compute capability is unknown, or the list is empty.
    """

    suffix = ".engine"

    def __init__(
        self,
        family: str,
        compute_capabilities: Sequence[str] | None = None,
        timing_cache: Path | None = None,
    ) -> None:
        self._trt = load_bindings(family)
        self._timing_cache = None if Features.of(self._trt).absent_gpus else timing_cache
        self._targets: list[str] | None = None
        if compute_capabilities is not None:
            self._targets = list(dict.fromkeys(compute_capabilities))
            known = known_capabilities(self._trt)
            unknown = [name for name in self._targets if name not in known]
            if unknown or not self._targets:
                raise CompileError(
                    f"compute capabilities out of {', '.join(known)}",
                    ", ".join(map(str, unknown)) or "none",
                    "Name at least one of those.",
                )

    def build(self, onnx_path: Path, engine_path: Path) -> None:
        """See `EngineBuilder.build`."""
        target = ", ".join(self._targets or ["this GPU"])
        parsers, caches = [], []

        def fill(network: Any, logger: Any) -> None:
            # The network must outlive the parser, or the process crashes; weights outlive both.
            parsers.append(self._trt.OnnxParser(network, logger))
            _parse(parsers[0], network, onnx_path)

        def configure(config: Any) -> None:
            _set_targets(self._trt, config, self._targets)
            caches.append(self._load_timings(config))

        required = f"TensorRT must be able to compile {onnx_path} for {target}"
        plan = _serialize(self._trt, fill, configure, required, parsers.clear)
        with replacing(engine_path, shared=True) as temporary:
            temporary.write_bytes(plan)
        if self._timing_cache is not None and caches[0] is not None:
            with replacing(self._timing_cache, shared=True) as temporary:
                temporary.write_bytes(caches[0].serialize())

    def _load_timings(self, config: Any) -> Any:
        """The timing cache that the build fills, or None."""
        if self._timing_cache is None:
            return None
        before = b""
        with contextlib.suppress(OSError):
            before = self._timing_cache.read_bytes()
        for content in dict.fromkeys([before, b""]):  # empty if the file is for another GPU
            cache = config.create_timing_cache(content)
            if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
                return cache
        return None


def build_small_convolution(family: str, engine_path: Path) -> None:
    """Build a network of one convolution for the present GPU, as a trial.

    Raises:
        CompileError: If it cannot be built.
        FileError: If it cannot be written.
    """
    import numpy as np

    trt = load_bindings(family)
    weights, bias = np.full((8, 3, 3, 3), 0.1, np.float32), np.zeros(8, np.float32)

    def fill(network: Any, logger: Any) -> None:
        images = network.add_input("images", trt.float32, (1, 3, 8, 8))
        layer = network.add_convolution_nd(
            images, 8, (3, 3), trt.Weights(weights), trt.Weights(bias)
        )
        features = layer.get_output(0)
        features.name = "features"
        network.mark_output(features)

    required = "TensorRT must be able to build for this GPU"
    plan = _serialize(trt, fill, lambda config: _set_targets(trt, config, None), required)
    with replacing(engine_path, shared=True) as temporary:
        temporary.write_bytes(plan)


def _serialize(
    trt: Any,
    fill: Callable[[Any, Any], None],
    configure: Callable[[Any], None],
    required: str,
    release: Callable[[], None] = lambda: None,
) -> bytes:
    """Build the network defined by `fill`; `release` is called while the network exists."""
    with collected_errors(trt) as (logger, messages):
        try:
            builder = trt.Builder(logger)
        except (RuntimeError, TypeError) as error:  # no GPU
            found = "; ".join(messages) or str(error)
            raise CompileError(required, found, NO_GPU_REMEDY) from error
        flags = 0
        if Features.of(trt).typed_flag:
            flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(flags)
        try:
            fill(network, logger)
            config = builder.create_builder_config()
            configure(config)
            with _output_to_errors():
                plan = builder.build_serialized_network(network, config)
        finally:
            release()
    if plan is None:
        found = "; ".join(messages) or "no engine and no reason"
        raise CompileError(required, found, NO_GPU_REMEDY if "CUDA driver" in found else _REMEDY)
    return bytes(plan)


@contextlib.contextmanager
def _output_to_errors() -> Iterator[None]:
    """Send what native code prints on standard output to standard error meanwhile."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def known_capabilities(trt: Any) -> list[str]:
    """Compute capabilities that TensorRT for RTX can build for, such as "SM89"."""
    members = trt.ComputeCapability.__members__
    return [name for name in members if name not in ("NONE", "CURRENT")]


def _set_targets(trt: Any, config: Any, compute_capabilities: Sequence[str] | None) -> None:
    """Set the target GPUs; None is the present one, which TensorRT uses by default."""
    if not Features.of(trt).absent_gpus:
        return
    names = compute_capabilities or ["CURRENT"]
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)


def _parse(parser: Any, network: Any, onnx_path: Path) -> None:
    """Fill a network from an ONNX file; raise CompileError with all faults."""
    required = f"TensorRT must be able to parse {onnx_path}"
    remedy = "Export the model with fixed shapes and operators that TensorRT knows."
    if not parser.parse_from_file(str(onnx_path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = [
            f"{name_layer(onnx_path, error.node_operator(), error.node_name())}: {error.desc()}"
            if error.node_name() or error.node_operator()
            else error.desc()
            for error in errors
        ]
        raise CompileError(required, "; ".join(reasons) or "no reason given", remedy)
    # A file that is no ONNX file is parsed without error to an empty network.
    if network.num_outputs == 0:
        raise CompileError(required, "a file without any output", remedy)
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if any(size < 0 for size in tensor.shape):
            raise CompileError(
                required, f"input {tensor.name!r} of the open shape {tuple(tensor.shape)}", remedy
            )
