"""Engines of TensorRT and TensorRT for RTX: for GPUs that are not there, and for the one here."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from devices import (
    EngineHeader,
    Runtime,
    TensorRTBuilder,
    read_engine_header,
    read_gpu,
)
from devices.errors import CompileError
from devices.runtimes import tensorrt_builder


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
    TensorRTBuilder("tensorrt-rtx", capabilities).build(write_gemm(TensorProto.FLOAT16), engine)
    header = read_engine_header(engine)
    assert header == EngineHeader(bindings.__version__, tuple(dict.fromkeys(capabilities)))


@pytest.mark.parametrize("capability", ["SM90", "CURRENT", "NONE", "sm89"])
def test_unknown_compute_capabilities_are_refused(capability: str, bindings: ModuleType) -> None:
    with pytest.raises(CompileError, match=f"out of SM75, .*, SM121; found: {capability}"):
        TensorRTBuilder("tensorrt-rtx", ["SM89", capability])


def test_no_compute_capability_is_refused(bindings: ModuleType) -> None:
    with pytest.raises(CompileError, match="compute capabilities out of .*found: none"):
        TensorRTBuilder("tensorrt-rtx", [])


def test_what_a_gpu_lacks_is_said(
    bindings: ModuleType, write_gemm: Callable[[int], Path], tmp_path: Path
) -> None:
    source = write_gemm(TensorProto.FLOAT)
    with pytest.raises(CompileError, match=r"compile .*gemm.onnx for SM75.*'classifier'.*FP32"):
        TensorRTBuilder("tensorrt-rtx", ["SM75"]).build(source, tmp_path / "network.engine")


def test_a_builder_goes_on_after_a_failure(
    bindings: ModuleType, unknown_operator: Path, convolution: Path, tmp_path: Path
) -> None:
    builder = TensorRTBuilder("tensorrt-rtx", ["SM89"])
    with pytest.raises(CompileError, match=r"parse .*operator NoSuch of the layer strange_node: "):
        builder.build(unknown_operator, tmp_path / "network.engine")
    builder.build(convolution, tmp_path / "network.engine")
    assert read_engine_header(tmp_path / "network.engine").compute_capabilities == ("SM89",)


def test_a_file_without_a_network_is_refused(
    bindings: ModuleType, junk: Path, tmp_path: Path
) -> None:
    with pytest.raises(CompileError, match="parse .*junk.onnx; found: a file without any output"):
        TensorRTBuilder("tensorrt-rtx", ["SM89"]).build(junk, tmp_path / "network.engine")


def test_an_open_shape_is_refused(
    bindings: ModuleType, write_relu: Callable[..., Path], tmp_path: Path
) -> None:
    source = write_relu("open.onnx", ["batch", 4])
    with pytest.raises(CompileError, match=r"input 'images' of the open shape \(-1, 4\)"):
        TensorRTBuilder("tensorrt-rtx", ["SM89"]).build(source, tmp_path / "network.engine")


def test_the_network_to_try_things_out_with_is_built(
    bindings: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_targets = tensorrt_builder._set_targets

    def for_an_absent_gpu(trt: ModuleType, config: Any, targets: list[str]) -> None:
        assert targets is None
        set_targets(trt, config, ["SM89"])

    monkeypatch.setattr(tensorrt_builder, "_set_targets", for_an_absent_gpu)
    tensorrt_builder.build_small_convolution("tensorrt-rtx", tmp_path / "trial.engine")
    assert read_engine_header(tmp_path / "trial.engine").compute_capabilities == ("SM89",)


@pytest.mark.skipif(read_gpu()["gpu"] is not None, reason="this machine has an NVIDIA GPU")
def test_for_the_gpu_here_there_must_be_one(
    bindings: ModuleType, convolution: Path, tmp_path: Path
) -> None:
    message = (
        r"convolution.onnx for this GPU; .*CUDA driver.*the same command .* device.transport=ssh"
    )
    with pytest.raises(CompileError, match=message):
        TensorRTBuilder("tensorrt-rtx").build(convolution, tmp_path / "network.engine")
    assert not (tmp_path / "network.engine").exists()


def test_a_builder_that_cannot_be_made_is_said(
    emulate_gpu: Callable[..., Any],
    convolution: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(logger: object) -> None:
        raise TypeError("factory function returned nullptr")

    monkeypatch.setattr(emulate_gpu().tensorrt, "Builder", refuse)
    with pytest.raises(CompileError, match="for this GPU; found: factory .* a machine with a GPU"):
        TensorRTBuilder("tensorrt").build(convolution, tmp_path / "network.engine")


def test_timings_are_kept_and_used_again(
    emulate_gpu: Callable[..., Any], convolution: Path, tmp_path: Path
) -> None:
    emulate_gpu()
    timings = tmp_path / "gpu.timing"
    builder = TensorRTBuilder("tensorrt", timing_cache=timings)
    for times in (1, 2):
        builder.build(convolution, tmp_path / "network.engine")
        assert timings.read_bytes() == b"timing" * times
    timings.write_bytes(b"of another GPU")
    builder.build(convolution, tmp_path / "network.engine")
    assert timings.read_bytes() == b"timing"
    TensorRTBuilder("tensorrt").build(convolution, tmp_path / "network.engine")


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("cuda_package", ["pycuda", "cuda-bindings"])
def test_an_engine_for_the_gpu_here_runs_here(
    family: str,
    cuda_package: str,
    tensorrt_here: Callable[..., Runtime],
    convolution: Path,
    tmp_path: Path,
) -> None:
    runtime = tensorrt_here(family, cuda_package)
    for _ in range(2):  # the second build finds the timings of the first
        builder = TensorRTBuilder(family, timing_cache=tmp_path / "gpu.timing")
        builder.build(convolution, tmp_path / "n.engine")
    session = runtime.load(tmp_path / "n.engine")
    assert session.run({"images": np.ones((1, 16, 8, 8), np.float32)})["features"].any()
    session.close()
