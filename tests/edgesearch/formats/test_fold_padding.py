"""Padding folded into convolutions, against what onnxruntime computes without."""

import collections

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper

from edgesearch.families import space_from_dict
from edgesearch.formats.fold_padding import fold_padding
from edgesearch.formats.int8 import INT8
from edgesearch.formats.onnx_export import export_blocks, export_network

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
LITTLE = space_from_dict(
    {"name": "little", "family": "mobile", "activation": "relu6", "padding": "tensorflow"}
    | {"stem_widths": [8], "stage_strides": [2, 1], "stage_widths": [[8], [16]]}
    | {"stage_depths": [[1, 2], [1]], "stage_kernels": [[3, 5], [3]], "head_widths": [16]}
    | {"stage_expansions": [[2], [2]], "resolutions": [32]}
)


def padded_convolutions(mode="constant", pads=(0, 0, 0, 1, 0, 0, 1, 2), value=0.0, second="Conv"):
    """Two readers of one padded map, one of which has padding of its own."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Pad", ["images", "counts", "value"], ["padded"], mode=mode),
        helper.make_node("Conv", ["padded", "weight"], ["one"], strides=[2, 2]),
        helper.make_node("Conv", ["padded", "weight"], ["two"], strides=[2, 2], pads=[0, 0, 0, 0]),
        helper.make_node("Add", ["one", "two"], ["sum"]),
    ]
    if second != "Conv":
        nodes[2] = helper.make_node(second, ["padded"], ["two"])
        nodes[3] = helper.make_node("Identity", ["one"], ["sum"])
    tensors = {"counts": np.array(pads), "value": np.float32(value), "weight": weight}
    graph = helper.make_graph(
        nodes,
        "padded",
        [helper.make_tensor_value_info("images", 1, IMAGES.shape)],
        [helper.make_tensor_value_info("sum", 1, [2, 4, None, None])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])


def outputs(model):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"images": IMAGES})[0]


def operators(model):
    return collections.Counter(node.op_type for node in model.graph.node)


def test_all_readers_get_the_zeros_and_nothing_is_left():
    model = padded_convolutions()
    expected = outputs(model)
    fold_padding(model)
    onnx.checker.check_model(model, full_check=True)
    assert operators(model) == {"Conv": 2, "Add": 1}
    assert [tensor.name for tensor in model.graph.initializer] == ["weight"]
    np.testing.assert_allclose(outputs(model), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        {"mode": "reflect"},
        {"value": 1.0},
        {"pads": (0, 1, 0, 0, 0, -1, 1, 1)},
        {"pads": (0, 0, -1, 0, 0, 0, 1, 1)},
        {"second": "Relu"},
    ],
    ids=str,
)
def test_other_padding_is_left_alone(other):
    model = padded_convolutions(**other)
    before = model.SerializeToString()
    fold_padding(model)
    assert model.SerializeToString() == before


@torch.no_grad()
def test_tensorflows_padding_is_folded_in_networks_and_blocks(tmp_path):
    network = LITTLE.make_network(LITTLE.blocks(LITTLE.largest)).eval()
    path = tmp_path / "network.onnx"
    export_network(network, path, input_shape=(2, 3, 32, 32), output_names=["features"])
    model = onnx.load(path)
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in network.modules())
    assert "Pad" not in operators(model)
    assert operators(model)["Conv"] == convolutions
    images = F.interpolate(torch.from_numpy(IMAGES), (32, 32))
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found, network(images), rtol=1e-4, atol=1e-5)
    paths = {b.key: tmp_path / b.key.replace("/", "_") for b in LITTLE.distinct_blocks(32)}
    export_blocks(LITTLE, 32, paths, batch=1)
    for block in LITTLE.distinct_blocks(32):
        model = onnx.load(paths[block.key])
        assert "Pad" not in operators(model)
        assert operators(model)["Conv"] == len(block.convolutions)


def test_nothing_but_integer_convolutions_is_left_of_relu6_in_eight_bits(tmp_path):
    paths = {b.key: tmp_path / b.key.replace("/", "_") for b in LITTLE.distinct_blocks(32)}
    export_blocks(LITTLE, 32, paths, batch=1)
    for block in LITTLE.blocks(LITTLE.largest)[1:-1]:
        whole, optimised = tmp_path / "int8.onnx", tmp_path / "optimised.onnx"
        INT8.write(paths[block.key], whole, "u8s8", is_first=False, is_last=False)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimised)
        onnxruntime.InferenceSession(whole, options, providers=["CPUExecutionProvider"])
        found = operators(onnx.load(optimised))
        assert found["QLinearConv"] == len(block.convolutions)
        assert set(found) <= {"QLinearConv", "QLinearAdd"}
