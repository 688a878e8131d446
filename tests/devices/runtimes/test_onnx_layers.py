"""Which layer a runtime lacks an operator for."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from devices import OnnxRuntime, OrtBuilder, TensorRTBuilder, layer_of, read_inputs
from devices.errors import CompileError, EngineError
from devices.runtimes.onnx_layers import name_layer


def in_module(node: onnx.NodeProto, *modules: str) -> onnx.NodeProto:
    """The node as torch's exporter marks it."""
    entry = node.metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", str(["", *modules, node.name])
    return node


def relu_of(element: int) -> list[onnx.NodeProto]:
    """A Relu on numbers of a type, between two Relus that everybody knows."""
    return [
        helper.make_node("Relu", ["images"], ["before"], name="node_relu"),
        helper.make_node("Cast", ["before"], ["cast"], to=element),
        in_module(
            helper.make_node("Relu", ["cast"], ["relu"], name="node_relu_1"), "layer2", "layer2.0"
        ),
        helper.make_node("Cast", ["relu"], ["features"], to=TensorProto.FLOAT),
    ]


def strange(domain: str, name: str = "") -> list[onnx.NodeProto]:
    return [
        helper.make_node("Relu", ["images"], ["before"]),
        helper.make_node("NoSuch", ["before"], ["features"], name=name, domain=domain),
    ]


CASES = {
    # onnxruntime takes this Relu apart, and complains of a Max that is not in the file.
    "no kernel": (relu_of(TensorProto.BFLOAT16), "operator Relu of the layer layer2.0: .*NOT_IMPL"),
    "foreign": (strange("foreign", "odd"), "operator NoSuch of the layer odd: .*not a registered"),
    "unknown": (strange("", "odd"), "operator NoSuch of the layer odd: .*No Op registered"),
    "without a name": (strange("foreign"), "operator NoSuch of the layer features: "),
}


@pytest.mark.parametrize(("nodes", "message"), CASES.values(), ids=CASES)
def test_onnxruntime_names_operator_and_layer(
    nodes: Sequence[onnx.NodeProto],
    message: str,
    write_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    path = write_model("model.onnx", nodes, [1, 4], [1, 4])
    with pytest.raises(EngineError, match=f"model.onnx; found: the {message}"):
        OnnxRuntime().load(path)
    with pytest.raises(EngineError, match=f"can read; found: the {message}"):
        read_inputs(path)
    with pytest.raises(CompileError, match=f"model.ort; found: the {message}"):
        OrtBuilder().build(path, tmp_path / "model.ort")


def test_without_onnx_the_message_is_the_runtimes(
    write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model("model.onnx", strange("foreign", "odd"), [1, 4], [1, 4])
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EngineError, match=r"found: \[ONNXRuntimeError\].*foreign:NoSuch"):
        OnnxRuntime().load(path)
    assert name_layer(path, "NoSuch", "odd") == "the operator NoSuch of the layer odd"


def test_other_failures_are_told_as_they_are(junk: Path) -> None:
    with pytest.raises(EngineError, match=r"found: \[ONNXRuntimeError\]") as refusal:
        OnnxRuntime().load(junk)
    assert "of the layer" not in str(refusal.value)


def test_tensorrt_names_operator_and_layer(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    determinant = helper.make_node("Det", ["images"], ["features"], name="node_det_7")
    path = write_model("det.onnx", [in_module(determinant, "layer1", "layer1.1")], [2, 2], [])
    with pytest.raises(CompileError, match=r"found: the operator Det of the layer layer1\.1: "):
        TensorRTBuilder("tensorrt-rtx", ["SM89"]).build(path, tmp_path / "det.engine")


def test_a_layer_has_a_name(write_model: Callable[..., Path]) -> None:
    named, output = (helper.make_node("Relu", ["a"], ["b"], name=name) for name in ("n", ""))
    assert (layer_of(named), layer_of(output)) == ("n", "b")
    assert layer_of(in_module(named, "layer1", "layer1.0")) == "layer1.0"
    path = write_model("model.onnx", relu_of(TensorProto.FLOAT16), [1, 4], [1, 4])
    assert name_layer(path, "Relu", "node_relu_1") == "the operator Relu of the layer layer2.0"
    assert name_layer(path, "Relu", "") == "the operator Relu of the layer node_relu"
    assert name_layer(path, "Conv", "").endswith("of the layer (without a name)")
