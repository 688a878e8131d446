"""Peak activation memory: counted block by block, and over the exported graph."""

import numpy as np
import onnx
import pytest

from edgesearch.families.resnet.network import ResNet
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.formats.onnx_export import export_network

IN_PLACE = ("Relu", "Add")


def make_space(block, stem):
    widths, depths = ((4, 8), (8, 12)), ((1, 2), (1, 3))
    return ResNetSpace("live", block, stem, (4, 16), widths, depths, (32,), in_channels=3)


def peak_of_graph(path):
    """Most values that are live during one node, each until its last use."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    known = [*graph.input, *graph.value_info, *graph.output]
    sizes = {
        v.name: int(np.prod([d.dim_value for d in v.type.tensor_type.shape.dim])) for v in known
    }
    weights = {tensor.name for tensor in graph.initializer}
    last = {name: number for number, node in enumerate(graph.node) for name in node.input}
    live, peak = {graph.input[0].name}, 0
    for number, node in enumerate(graph.node):
        given = {name for name in node.input if name in sizes and name not in weights}
        dying = {name for name in given if last[name] == number}
        during = sum(sizes[name] for name in live)
        if not (node.op_type in IN_PLACE and dying):
            during += sum(sizes[name] for name in node.output)
        peak = max(peak, during)
        live = (live - dying) | set(node.output)
    return peak


@pytest.mark.parametrize(
    ("block", "stem"), [("basic", "small"), ("basic", "imagenet"), ("bottleneck", "small")]
)
def test_equals_the_liveness_of_the_exported_graph(tmp_path, block, stem):
    space = make_space(block, stem)
    peaks = space.sums(lambda one: one.live_values, highest=True)(None)
    architecture = space.architecture(space.size // 3)
    path = tmp_path / "network.onnx"
    network = ResNet(space.blocks(architecture)).eval()
    export_network(network, path, input_shape=(1, 3, 32, 32), output_names=["features"])
    assert peaks[space.index(architecture)] == peak_of_graph(path)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_all_at_once_equals_one_by_one(block):
    space = make_space(block, "small")
    peaks = space.sums(lambda one: one.live_values, highest=True)(None)
    expected = [max(one.live_values for one in space.blocks(each)) for each in space]
    assert peaks.tolist() == expected
    assert len(set(expected)) >= 3


def test_weights_are_most_of_a_file(tmp_path):
    """weight_bytes is named for what it is: a little below the size of the file."""
    space = ResNetSpace("w", "basic", "small", (16,), ((64,),), ((3,),), (16,))
    path = tmp_path / "network.onnx"
    network = ResNet(space.blocks(space.largest)).eval()
    export_network(network, path, input_shape=(1, 3, 16, 16), output_names=["features"])
    assert 0.99 < path.stat().st_size / (4 * space.params(space.largest)) < 1.1
