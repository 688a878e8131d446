"""What engines of TensorRT for RTX say of themselves."""

import struct
import sys
from pathlib import Path

import pytest

from devices import EngineHeader, read_engine_header
from devices.errors import EngineError


def write_header(path: Path, magic: bytes = b"vtrt", size: int = 64, mask: int = 0x0C) -> Path:
    head = struct.pack("<4s12xQ4s4xI", magic, 64, bytes([1, 7, 1, 116]), mask)
    path.write_bytes(head.ljust(64, b"\0")[:size].ljust(size, b"\0"))
    return path


def test_the_header_is_read_without_the_bindings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    found = read_engine_header(write_header(tmp_path / "network.engine"))
    assert found == EngineHeader("1.7.1.116", ("SM86", "SM89"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"magic": b"ftrt"}, "found: a file that begins with b'ftrt'"),
        ({"size": 63}, "of 64 bytes; found: 63 bytes: it is damaged"),
        ({"size": 65}, "of 64 bytes; found: 65 bytes: it is damaged"),
        ({"size": 20}, "found: a file that begins with b'vtrt'"),
        ({"size": 0}, "found: a file that begins with b''"),
        ({"mask": 0}, "SM121; found: a target mask of 0x0"),
        ({"mask": 0x44}, "SM121; found: a target mask of 0x44"),
    ],
)
def test_a_damaged_or_foreign_engine_is_refused(
    change: dict[str, int], message: str, tmp_path: Path
) -> None:
    path = write_header(tmp_path / "network.engine", **change)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=message):
        read_engine_header(path)


def test_a_missing_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="No such file"):
        read_engine_header(tmp_path / "network.engine")
