"""The header of TensorRT for RTX engines, read without library or GPU."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from devices.errors import EngineError

# Undocumented; derived from engines of version 1.7 (little endian): magic, size of the file, four
# version bytes, mask of compute capabilities.
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
    """Header of an engine.

    Attributes:
        runtime_version: Version of TensorRT for RTX that built it, such as `1.7.1.116`.
        compute_capabilities: GPU generations that it runs on, such as `("SM86", "SM89")`.
    """

    runtime_version: str
    compute_capabilities: tuple[str, ...]


def has_engine_header(path: Path) -> bool:
    """Whether a file begins like an engine of TensorRT for RTX; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read_engine_header(path: Path) -> EngineHeader:
    """Read the header of a TensorRT for RTX engine.

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
