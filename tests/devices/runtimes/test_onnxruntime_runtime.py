"""onnxruntime beyond what every runtime promises."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from devices import OnnxRuntime, OrtBuilder
from devices.errors import EngineError, RuntimeMissingError


def test_its_collection_of_usage_data_is_off(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    program = "import devices.errors; import onnxruntime"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert not list(tmp_path.iterdir())  # an identifier and events would be kept there


def test_its_output_is_the_networks(convolution: Path) -> None:
    inputs = {"images": np.random.default_rng(1).standard_normal((1, 16, 8, 8), np.float32)}
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = onnxruntime.InferenceSession(
        str(convolution), plain, providers=["CPUExecutionProvider"]
    ).run(None, inputs)[0]
    for threads in (1, 2):
        session = OnnxRuntime(threads=threads).load(convolution)
        assert session.inputs == {"images": (1, 16, 8, 8)}
        found = session.run(inputs)
        assert list(found) == ["features"]
        np.testing.assert_allclose(found["features"], expected, atol=1e-5)


@pytest.mark.parametrize("portable", [True, False])
def test_an_ort_file_gives_what_the_onnx_file_gives(
    portable: bool, convolution: Path, tmp_path: Path
) -> None:
    ort = tmp_path / "convolution.ort"
    OrtBuilder(portable=portable).build(convolution, ort)
    runtime = OnnxRuntime()
    inputs = {"images": np.random.default_rng(1).standard_normal((1, 16, 8, 8), np.float32)}
    expected = runtime.load(convolution).run(inputs)["features"]
    session = runtime.load(ort)
    np.testing.assert_allclose(session.run(inputs)["features"], expected, atol=1e-5)
    assert len(session.time_ms(2)) == 2


def test_a_portable_ort_file_is_not_laid_out_for_this_machine(
    convolution: Path, tmp_path: Path
) -> None:
    # Going over to the layout that fits this machine takes an operator of this name.
    for portable in (True, False):
        OrtBuilder(portable=portable).build(convolution, tmp_path / f"{portable}.ort")
    assert b"ReorderInput" not in (tmp_path / "True.ort").read_bytes()
    assert b"ReorderInput" in (tmp_path / "False.ort").read_bytes()


def test_sessions_of_other_libraries_are_left_alone(convolution: Path) -> None:
    OnnxRuntime(threads=2).load(convolution).time_ms(1)
    assert onnxruntime.InferenceSession(str(convolution), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("element", [TensorProto.FLOAT16, TensorProto.INT32, TensorProto.DOUBLE])
def test_other_types_can_be_timed(element: int, write_relu: Callable[..., Path]) -> None:
    session = OnnxRuntime().load(write_relu("typed.onnx", [1, 4], element))
    assert len(session.time_ms(2)) == 2


def test_a_wrong_type_is_named(write_relu: Callable[..., Path]) -> None:
    session = OnnxRuntime().load(write_relu("relu.onnx", [1, 4]))
    with pytest.raises(EngineError, match="'images' must be of type float32; found: float64"):
        session.run({"images": np.zeros((1, 4))})


def test_an_open_shape_is_refused(write_relu: Callable[..., Path]) -> None:
    with pytest.raises(EngineError, match=r"but for the batch; found: 'images' of shape \[1, 'n'"):
        OnnxRuntime().load(write_relu("open.onnx", [1, "n"]))


def test_an_open_batch_is_chosen(write_relu: Callable[..., Path]) -> None:
    session = OnnxRuntime(batch=3).load(write_relu("open.onnx", ["batch", 4]))
    assert session.inputs == {"images": (3, 4)}
    assert len(session.time_ms(2)) == 2
    assert session.run({"images": np.ones((3, 4), np.float32)})["features"].shape == (3, 4)


def test_an_unknown_type_is_refused(tmp_path: Path, write_relu: Callable[..., Path]) -> None:
    path = write_relu("odd.onnx", [1, 4], TensorProto.BFLOAT16)
    with pytest.raises(EngineError, match="odd.onnx"):
        OnnxRuntime().load(path)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"\.onnx and \.ort files; found: .*engine"):
        OnnxRuntime().load(tmp_path / "network.engine")


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
def test_a_damaged_file_is_refused(
    suffix: str, convolution: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"damaged{suffix}"
    if suffix == ".ort":
        OrtBuilder().build(convolution, path)
    data = (path if suffix == ".ort" else convolution).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(EngineError, match="must be able to load .*damaged"):
        OnnxRuntime().load(path)
    assert capfd.readouterr().out == ""


def test_without_the_package_the_pip_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeMissingError, match="pip install --upgrade onnxruntime"):
        OnnxRuntime()


@pytest.mark.skipif(np.__version__.startswith("1."), reason="is about numpy 2")
@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("1.15.1", "onnxruntime 1.19 or newer for numpy 2.* found: 1.15.1. .*'numpy<2'"),
        ("1.19.0", "the package onnxruntime; found: it does not fit"),
    ],
)
def test_a_version_that_does_not_fit_numpy_is_named(
    version: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "onnxruntime"
    package.mkdir()
    raises = "raise SystemError('broken') from ImportError('it does not fit')"
    (package / "__init__.py").write_text(f'__version__ = "{version}"\n{raises}\n', "utf-8")
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeMissingError, match=says):
        OnnxRuntime()
