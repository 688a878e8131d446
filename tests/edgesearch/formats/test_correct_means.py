"""Means of channels in converted networks, and what they are worth."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from edgesearch.families import space_from_dict
from edgesearch.formats.correct_means import correct_means
from edgesearch.formats.fp16 import FP16
from edgesearch.formats.int8 import INT8
from edgesearch.formats.onnx_export import export_network
from edgesearch.formats.precision import Calibration
from edgesearch.formats.precisions import precision_with

SPACE = space_from_dict(
    {"name": "little", "family": "mobile", "activation": "relu6", "resolutions": [32]}
    | {"stem_widths": [16], "stage_strides": [1, 2, 1], "stage_widths": [[8], [16], [24]]}
    | {"stage_depths": [[1], [3], [3]], "stage_kernels": [[3], [3], [5]]}
    | {"stage_expansions": [[2], [4], [4]], "head_widths": [64], "padding": "tensorflow"}
)


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(48, 3, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()


@pytest.fixture(scope="module")
def network(pixels, tmp_path_factory):
    """A mobile network with statistics of its images, as a model in single precision."""
    torch.manual_seed(0)
    network = SPACE.make_network(SPACE.blocks(SPACE.largest))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, 0, 3)  # means far from 0
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.from_numpy(pixels))
    path = tmp_path_factory.mktemp("network") / "subnet.onnx"
    export_network(network, path, input_shape=(4, 3, 32, 32), output_names=["features"])
    return onnx.load(path)


def outputs(model, pixels):
    """The features, then the outputs of all convolutions by node, (N, …)."""
    tapped = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = [node for node in tapped.graph.node if node.op_type == "Conv"]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in nodes)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tapped.SerializeToString(), options)
    parts = [session.run(None, {"images": batch}) for batch in np.split(pixels, len(pixels) // 4)]
    whole = [np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True)]
    return whole[0], {node.name: own for node, own in zip(nodes, whole[1:], strict=True)}


def shift(expected, found):
    """How far means of channels are shifted (root mean square), in deviations of the channel."""
    each = [
        (found[name] - values).mean((0, 2, 3)) / np.maximum(values.std((0, 2, 3)), 1e-3)
        for name, values in expected.items()
    ]
    return np.sqrt(np.square(np.concatenate(each)).mean())


@pytest.mark.parametrize("form", ["fp16", "u8s8", "s8s8-symmetric"])
def test_channels_keep_their_means(network, pixels, form, monkeypatch):
    batches = np.split(pixels, 12)
    features, expected = outputs(network, pixels)
    convert = precision_with(form).convert
    calibration = Calibration(batches) if form != "fp16" else None
    copy = onnx.ModelProto.FromString(network.SerializeToString())  # the quantizer empties it
    with monkeypatch.context() as without:
        without.setattr("edgesearch.formats.int8.correct_means", lambda *_: None)
        converted = convert(copy, form, True, True, calibration)
    before_features, before = outputs(converted, pixels)
    operators = Counter(node.op_type for node in converted.graph.node)
    correct_means(network, converted, batches)
    after_features, after = outputs(converted, pixels)
    # What a bias in half precision cannot tell remains.
    assert shift(expected, after) < 0.6 * shift(expected, before)
    errors = [np.square(each - features).mean() for each in (before_features, after_features)]
    assert errors[1] < 0.7 * errors[0]
    assert Counter(node.op_type for node in converted.graph.node) == operators
    onnx.checker.check_model(converted)


def test_half_precision_is_corrected_where_images_are_given(network, pixels):
    text = network.SerializeToString()
    features, _ = outputs(network, pixels[:8])
    errors = []
    for calibration in (None, Calibration(np.split(pixels[8:], 10))):
        converted = FP16.convert(network, "fp16", True, True, calibration)
        errors.append(np.square(outputs(converted, pixels[:8])[0] - features).mean())
    assert errors[1] < 0.5 * errors[0]
    assert network.SerializeToString() == text


@pytest.mark.parametrize("form", INT8.number_formats)
def test_eight_bits_are_corrected(network, pixels, form, monkeypatch):
    features, _ = outputs(network, pixels[:8])
    errors = []
    for correct in (lambda *_: None, correct_means):
        monkeypatch.setattr("edgesearch.formats.int8.correct_means", correct)
        copy = onnx.ModelProto.FromString(network.SerializeToString())
        calibration = Calibration(np.split(pixels[8:], 10))
        converted = INT8.convert(copy, form, True, True, calibration)
        errors.append(np.square(outputs(converted, pixels[:8])[0] - features).mean())
    assert errors[1] < 0.8 * errors[0]


def test_a_bias_of_several_layers_is_changed_for_one_alone(pixels):
    """The exporter writes equal constants once."""
    rng, pixels = np.random.default_rng(0), pixels + 4
    names = ("first", "second")
    weights = {name: rng.normal(1, 1, (3, 3, 1, 1)).astype(np.float32) for name in names}
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    constants.append(numpy_helper.from_array(np.full(3, 0.1, np.float32), "bias"))
    images, features = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4, 3, 32, 32])
        for name in ("images", "features")
    )
    first = helper.make_node("Conv", ["images", "first", "bias"], ["map"], "node_first")
    second = helper.make_node("Conv", ["map", "second", "bias"], ["features"], "node_second")
    graph = helper.make_graph([first, second], "graph", [images], [features], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    _, expected = outputs(model, pixels)
    converted = FP16.convert(model, "fp16", True, True, Calibration([pixels[:4], pixels[4:8]]))
    assert {node.input[2] for node in converted.graph.node if node.op_type == "Conv"} == {
        "bias",
        "node_first_bias",
    }
    _, found = outputs(converted, pixels)
    _, before = outputs(FP16.convert(model, "fp16", True, True, None), pixels)
    assert shift(expected, found) < 0.6 * shift(expected, before)
