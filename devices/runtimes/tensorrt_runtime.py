"""TensorRT for RTX: engines for several GPU generations, built with or without a GPU."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import CompileError, EngineError, RuntimeMissingError
from devices.runtimes.checks import written_whole

# The vendor documents no header; this one was read off engines of version 1.7 (little endian):
# magic, size of the file, four version bytes, mask of compute capabilities.
_HEADER = struct.Struct("<4s12xQ4s4xI")
_MAGIC = b"vtrt"
_CAPABILITY_BITS = {
    0x01: "SM75",
    0x02: "SM80",
    0x04: "SM86",
    0x08: "SM89",
    0x10: "SM120",
    0x20: "SM121",
}


@dataclass(frozen=True)
class EngineHeader:
    """What an engine says of itself without being loaded.

    Args:
        runtime_version: Version of TensorRT for RTX that built it, such as `1.7.1.116`.
        compute_capabilities: GPU generations that it runs on, such as `("SM86", "SM89")`.
    """

    runtime_version: str
    compute_capabilities: tuple[str, ...]


class TensorRTRtxBuilder:
    """Compiles ONNX files to `.engine` files.

    Types are the ONNX file's: for half precision pass a model in half precision.

    Args:
        compute_capabilities: GPU generations that one engine is to run on, such as
            `["SM75", "SM86", "SM89", "SM120"]`. SM75 has no matrix product in fp32.

    Raises:
        RuntimeMissingError: If the bindings are not installed.
        CompileError: If a compute capability is unknown, or none is given.
    """

    suffix = ".engine"

    def __init__(self, compute_capabilities: Sequence[str]) -> None:
        members = _bindings().ComputeCapability.__members__
        known = [name for name in members if name not in ("NONE", "CURRENT")]
        # Twice the same is one target.
        self._compute_capabilities = list(dict.fromkeys(compute_capabilities))
        unknown = [name for name in self._compute_capabilities if name not in known]
        if unknown or not self._compute_capabilities:
            raise CompileError(
                f"compute capabilities out of {', '.join(known)}",
                ", ".join(map(str, unknown)) or "none",
                "Name at least one of those.",
            )

    def build(self, onnx_path: Path, engine_path: Path) -> None:
        """Compile a model; see `EngineBuilder.build`."""
        trt = _bindings()
        messages: list[str] = []
        logger = _logger()
        logger.sink = messages.append
        try:
            builder = trt.Builder(logger)
            flag = int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            network = builder.create_network(1 << flag)
            # The network must outlive the parser, or the process crashes.
            parser = trt.OnnxParser(network, logger)
            _parse(parser, network, onnx_path)
            config = builder.create_builder_config()
            config.num_compute_capabilities = len(self._compute_capabilities)
            for index, name in enumerate(self._compute_capabilities):
                config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
            plan = builder.build_serialized_network(network, config)
            del parser
        finally:
            logger.sink = None
        if plan is None:
            raise CompileError(
                f"TensorRT must be able to compile {onnx_path} "
                f"for {', '.join(self._compute_capabilities)}",
                "; ".join(messages) or "no engine and no reason",
                "Change the model, its precision or the compute capabilities.",
            )
        with written_whole(engine_path) as temporary:
            temporary.write_bytes(plan)


def read_engine_header(path: Path) -> EngineHeader:
    """Read what a TensorRT for RTX engine says of itself; needs neither library nor GPU.

    Args:
        path: The engine.

    Raises:
        EngineError: If the file cannot be read, is damaged or is no such engine.
    """
    required = f"{path} must be an engine of TensorRT for RTX"
    remedy = "Compile the model again."
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            size_bytes = file.seek(0, 2)
    except OSError as error:
        raise EngineError(required, error.strerror or str(error), remedy) from error
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        raise EngineError(required, f"a file that begins with {head[:4]!r}", remedy)
    _, expected_bytes, version, mask = _HEADER.unpack(head)
    if size_bytes != expected_bytes:
        raise EngineError(
            f"{required} of {expected_bytes} bytes", f"{size_bytes} bytes: it is damaged", remedy
        )
    names = tuple(name for bit, name in _CAPABILITY_BITS.items() if mask & bit)
    if not names or mask & ~sum(_CAPABILITY_BITS):
        raise EngineError(
            f"{required} for {', '.join(_CAPABILITY_BITS.values())}",
            f"a target mask of {mask:#x}",
            remedy,
        )
    return EngineHeader(".".join(map(str, version)), names)


def _bindings() -> Any:
    try:
        import tensorrt_rtx_bindings
    except (ImportError, OSError) as error:  # OSError: bindings without their libraries
        raise _missing(str(error)) from error
    if not hasattr(tensorrt_rtx_bindings, "ComputeCapability"):
        raise _missing("one that cannot build for a GPU that is not there")
    return tensorrt_rtx_bindings


def _missing(found: str) -> RuntimeMissingError:
    return RuntimeMissingError(
        "the packages of TensorRT for RTX, version 1.7 or newer",
        found,
        "Install them: pip install tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs",
    )


@functools.cache
def _logger() -> Any:
    """Return the logger of this process: TensorRT keeps the first that it is given."""
    trt = _bindings()
    severities = trt.ILogger.Severity

    class Logger(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # the binding crashes without it
            self.sink: Callable[[str], None] | None = None

        def log(self, severity: Any, message: str) -> None:
            if self.sink and severity in (severities.ERROR, severities.INTERNAL_ERROR):
                self.sink(message)

    return Logger()


def _parse(parser: Any, network: Any, onnx_path: Path) -> None:
    """Fill a network from an ONNX file; raise CompileError with all that is wrong."""
    required = f"TensorRT must be able to parse {onnx_path}"
    remedy = "Export the model with fixed shapes and operators that TensorRT knows."
    if not parser.parse_from_file(str(onnx_path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = [
            f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}"
            if error.node_name() or error.node_operator()
            else error.desc()
            for error in errors
        ]
        raise CompileError(required, "; ".join(reasons) or "no reason given", remedy)
    # What is no ONNX file at all is parsed without complaint, to nothing.
    if network.num_outputs == 0:
        raise CompileError(required, "a file without any output", remedy)
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if any(size < 0 for size in tensor.shape):
            raise CompileError(
                required, f"input {tensor.name!r} of the open shape {tuple(tensor.shape)}", remedy
            )
