"""Small real ONNX files, and TensorRT: here, or emulated."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from devices import Runtime, TensorRTRuntime
from devices.errors import DeviceError, EngineError


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model from `images` to `features`."""

    def write(
        name: str,
        nodes: Sequence[onnx.NodeProto],
        input_shape: Sequence[int | str],
        output_shape: Sequence[int | str],
        weights: Sequence[onnx.TensorProto] = (),
        element: int = TensorProto.FLOAT,
    ) -> Path:
        graph = helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("images", element, input_shape)],
            [helper.make_tensor_value_info("features", element, output_shape)],
            weights,
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("foreign", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def convolution(write_model: Callable[..., Path]) -> Path:
    """Two convolutions with a residual connection: (1, 16, 8, 8) to itself."""
    random = np.random.default_rng(0)
    nodes, weights, name = [], [], "images"
    for index in range(2):
        values = random.standard_normal((16, 16, 3, 3)).astype(np.float32) / 12
        weights.append(numpy_helper.from_array(values, f"weight{index}"))
        nodes.append(
            helper.make_node("Conv", [name, f"weight{index}"], [f"c{index}"], pads=[1] * 4)
        )
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        name = f"r{index}"
    nodes.append(helper.make_node("Add", [name, "images"], ["features"]))
    return write_model("convolution.onnx", nodes, [1, 16, 8, 8], [1, 16, 8, 8], weights)


@pytest.fixture
def write_relu(write_model: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a Relu of some shape and type."""

    def write(name: str, shape: Sequence[int | str], element: int = TensorProto.FLOAT) -> Path:
        node = helper.make_node("Relu", ["images"], ["features"])
        return write_model(name, [node], shape, shape, element=element)

    return write


@pytest.fixture
def unknown_operator(write_model: Callable[..., Path]) -> Path:
    """A model with an operator that nobody knows."""
    node = helper.make_node(
        "NoSuch", ["images"], ["features"], name="strange_node", domain="foreign"
    )
    return write_model("unknown.onnx", [node], [1, 4], [1, 4])


@pytest.fixture
def junk(tmp_path: Path) -> Path:
    """No ONNX file at all."""
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"hello junk" * 10)
    return path


def load_beside(name: str) -> Any:
    """Import a module that lies beside this file."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def emulate_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Lets cuda-bindings find a GPU that is emulated."""
    bindings = pytest.importorskip("cuda.bindings", reason="cuda-bindings are not installed")
    module = load_beside("emulated_cuda")

    def emulate(gpus: int = 1) -> Any:
        emulated = module.EmulatedCuda(gpus)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", emulated.module)
        monkeypatch.setattr(bindings, "runtime", emulated.module)
        return emulated

    return emulate


@pytest.fixture
def emulate_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Lets TensorRT 10 and a GPU be emulated, with or without CUDA graphs."""
    module = load_beside("emulated_tensorrt")
    return lambda graphs=True: module.install(monkeypatch, tmp_path / "cache", graphs)


@pytest.fixture
def tensorrt_here(tmp_path: Path) -> Callable[[str, str], Runtime]:
    """Opens TensorRT on the GPU of this machine; skips, and says why, where that cannot be."""

    def open_here(family: str, cuda_package: str) -> Runtime:
        try:
            return TensorRTRuntime(family, tmp_path / "cache", cuda_package)
        except EngineError:
            raise  # all is there, but it does not work
        except DeviceError as error:
            pytest.skip(str(error))

    return open_here
