"""Engines of TensorRT for RTX, built for GPUs that are not there."""

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from devices import EngineHeader, TensorRTRtxBuilder, read_engine_header
from devices.errors import CompileError, EngineError, RuntimeMissingError


@pytest.fixture
def bindings() -> ModuleType:
    """The bindings; skips where they have no wheel."""
    return pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")


@pytest.fixture
def write_gemm(write_model: Callable[..., Path]) -> Callable[[int], Path]:
    """Writes a matrix product in some precision."""

    def write(element: int) -> Path:
        weights = np.ones((64, 64), helper.tensor_dtype_to_np_dtype(element))
        return write_model(
            "gemm.onnx",
            [helper.make_node("Gemm", ["images", "weight"], ["features"], name="classifier")],
            [1, 64],
            [1, 64],
            [numpy_helper.from_array(weights, "weight")],
            element,
        )

    return write


@pytest.mark.parametrize(
    "capabilities",
    [["SM89"], ["SM75", "SM86", "SM89", "SM120"], ["SM80", "SM121"], ["SM86", "SM86"]],
)
def test_the_header_says_what_an_engine_was_built_for(
    capabilities: list[str],
    bindings: ModuleType,
    write_gemm: Callable[[int], Path],
    tmp_path: Path,
) -> None:
    engine = tmp_path / "network.engine"
    TensorRTRtxBuilder(capabilities).build(write_gemm(TensorProto.FLOAT16), engine)
    header = read_engine_header(engine)
    assert header == EngineHeader(bindings.__version__, tuple(dict.fromkeys(capabilities)))


@pytest.mark.parametrize("capability", ["SM90", "CURRENT", "NONE", "sm89"])
def test_unknown_compute_capabilities_are_refused(capability: str, bindings: ModuleType) -> None:
    with pytest.raises(CompileError, match=f"out of SM75, .*, SM121; found: {capability}"):
        TensorRTRtxBuilder(["SM89", capability])


def test_no_compute_capability_is_refused(bindings: ModuleType) -> None:
    with pytest.raises(CompileError, match="compute capabilities out of .*found: none"):
        TensorRTRtxBuilder([])


def test_what_a_gpu_lacks_is_said(
    bindings: ModuleType, write_gemm: Callable[[int], Path], tmp_path: Path
) -> None:
    source = write_gemm(TensorProto.FLOAT)
    with pytest.raises(CompileError, match=r"compile .*gemm.onnx for SM75.*'classifier'.*FP32"):
        TensorRTRtxBuilder(["SM75"]).build(source, tmp_path / "network.engine")


def test_a_builder_goes_on_after_a_failure(
    bindings: ModuleType, unknown_operator: Path, convolution: Path, tmp_path: Path
) -> None:
    builder = TensorRTRtxBuilder(["SM89"])
    with pytest.raises(CompileError, match=r"parse .*node 'strange_node' \(NoSuch\): "):
        builder.build(unknown_operator, tmp_path / "network.engine")
    builder.build(convolution, tmp_path / "network.engine")
    assert read_engine_header(tmp_path / "network.engine").compute_capabilities == ("SM89",)


def test_a_file_without_a_network_is_refused(
    bindings: ModuleType, junk: Path, tmp_path: Path
) -> None:
    with pytest.raises(CompileError, match="parse .*junk.onnx; found: a file without any output"):
        TensorRTRtxBuilder(["SM89"]).build(junk, tmp_path / "network.engine")


def test_an_open_shape_is_refused(
    bindings: ModuleType, write_relu: Callable[..., Path], tmp_path: Path
) -> None:
    source = write_relu("open.onnx", ["batch", 4])
    with pytest.raises(CompileError, match=r"input 'images' of the open shape \(-1, 4\)"):
        TensorRTRtxBuilder(["SM89"]).build(source, tmp_path / "network.engine")


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


def test_without_the_bindings_the_pip_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(RuntimeMissingError, match="pip install tensorrt-rtx-cu13-bindings"):
        TensorRTRtxBuilder(["SM89"])


def test_bindings_that_cannot_build_for_absent_gpus_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older = ModuleType("tensorrt_rtx_bindings")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", older)
    with pytest.raises(RuntimeMissingError, match="cannot build for a GPU that is not there"):
        TensorRTRtxBuilder(["SM89"])
