"""Eight bits: blocks as they are inside of networks, and networks that still give the same."""

import collections

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from devices import OnnxRuntime, modules_of
from edgesearch.errors import ExportError
from edgesearch.export.engines import ONNX_FILE
from edgesearch.export.verify import verify_engine
from edgesearch.families.mobile.space import MobileSpace
from edgesearch.formats.int8 import INT8
from edgesearch.formats.onnx_export import assemble_network, export_blocks
from edgesearch.formats.precision import CALIBRATIONS, Calibration

INTEGER_FORMATS = INT8.number_formats


def quantize_network(path, int8_path, form, batches, method="minmax"):
    INT8.write(path, int8_path, form, calibration=Calibration(batches, method))


def operators(path, folder):
    """How often each operator occurs in what onnxruntime makes of a file for any processor."""
    optimised = folder / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(optimised)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return collections.Counter(node.op_type for node in onnx.load(optimised).graph.node)


def onnx_convolutions(path):
    return [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]


@pytest.mark.parametrize("form", INTEGER_FORMATS)
def test_joined_blocks_are_what_the_whole_network_is(form, space, blocks, converted, tmp_path):
    joined, whole = tmp_path / "joined.onnx", tmp_path / "whole.onnx"
    assemble_network(space.blocks(space.largest), converted(form), joined)
    images = np.random.default_rng(0).standard_normal((2, 1, 16, 16)).astype(np.float32)
    quantize_network(blocks.network, whole, form, [images])
    found = operators(joined, tmp_path)
    assert found == operators(whole, tmp_path)
    if form.startswith("u8s8"):
        convolutions = operators(blocks.network, tmp_path)
        assert found["QLinearConv"] == convolutions["Conv"] + convolutions["FusedConv"] > 0
        # Only the images are quantized, and only the features are turned back.
        assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1


@pytest.mark.parametrize("form", ["u8s8", "u8s8-reduced", "s8s8"])
def test_blocks_that_end_in_single_precision_are_joined_too(form, converted, tmp_path):
    """Hard-swish has no integer form: its blocks give and take integers all the same."""
    space = MobileSpace(
        name="swish",
        activation="hard_swish",
        stem_widths=(8,),
        stage_strides=(2,),
        stage_widths=((16,),),
        stage_depths=((2,),),
        stage_kernels=((3,),),
        stage_expansions=((2,),),
        head_widths=(24,),
        resolutions=(16,),
        in_channels=1,
    )
    paths = {
        block.key: tmp_path / f"{block.key.replace('/', '_')}.onnx"
        for block in space.distinct_blocks(16)
    }
    export_blocks(space, 16, paths, batch=2)
    largest = space.blocks(space.largest)
    network, joined, whole = (tmp_path / f"{name}.onnx" for name in ("fp32", "joined", "whole"))
    assemble_network(largest, paths, network)
    integers = converted(form, space, paths)
    for path in integers.values():
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assemble_network(largest, integers, joined)
    images = np.random.default_rng(0).standard_normal((2, 1, 16, 16)).astype(np.float32)
    quantize_network(network, whole, form, [images])
    if form == "s8s8":  # onnxruntime leaves some of its convolutions in single precision
        onnxruntime.InferenceSession(joined, providers=["CPUExecutionProvider"])
        return
    expected = operators(whole, tmp_path)
    # The pooling takes integers as behind other activations, in the whole network hard-swish's own.
    expected.update(["QuantizeLinear", "DequantizeLinear"])
    assert operators(joined, tmp_path) == expected
    assert expected["QLinearConv"] == len(onnx_convolutions(network))


def test_for_tensorrt_only_what_convolutions_take_is_quantized(space, converted):
    # Else TensorRT could not join to a convolution what follows it.
    seen = 0
    for path in converted("s8s8-symmetric").values():
        graph = onnx.load(path).graph
        kinds = {name: node.op_type for node in graph.node for name in node.output}
        takers = collections.defaultdict(set)
        for node in graph.node:
            for name in node.input:
                takers[name].add(node.op_type)
        for node in graph.node:
            if node.op_type == "QuantizeLinear":
                assert kinds.get(node.input[0]) not in ("Conv", "Gemm")
            if node.op_type == "DequantizeLinear":
                assert takers[node.output[0]] & {"Conv", "Gemm"}
        convolutions = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
        for node in convolutions:
            assert {kinds[name] for name in node.input[:2]} == {"DequantizeLinear"}
        seen += len(convolutions)
    assert seen > 4


@pytest.mark.parametrize("form", ["u8s8", "s8s8-symmetric"])
def test_ranges_are_chosen_in_different_ways(form, exported, images, expected, tmp_path):
    pixels = images.numpy()
    found = {}
    for method in CALIBRATIONS:
        path = tmp_path / f"{method}.onnx"
        batches = [pixels[i : i + 1] for i in range(12)]
        quantize_network(exported / ONNX_FILE, path, form, batches, method)
        parity = verify_engine(path, OnnxRuntime(), pixels, expected, INT8)
        assert parity.min_cosine < 0.999999
        scales = [
            float(numpy_helper.to_array(t).max())
            for t in onnx.load(path).graph.initializer
            if t.name.endswith("_scale")
        ]
        found[method] = tuple(scales)
    assert len(set(found.values())) == len(CALIBRATIONS)
    # What lies far out is cut off.
    assert sum(found["percentile"]) < sum(found["minmax"])


def test_histograms_are_of_all_images(exported, images, tmp_path):
    # Read four at a time: the last four, and those that are left over, count as well.
    pixels = images.numpy()[:6].copy()
    pixels[5] *= 10
    scales = []
    for count in (5, 6):
        path = tmp_path / f"{count}.onnx"
        batches = [pixels[i : i + 1] for i in range(count)]
        quantize_network(exported / ONNX_FILE, path, "u8s8", batches, "percentile")
        (scale,) = (t for t in onnx.load(path).graph.initializer if t.name == "images_scale")
        scales.append(float(numpy_helper.to_array(scale)))
    assert scales[1] > 2 * scales[0]


def test_what_cannot_be_quantized_is_said(exported, tmp_path):
    with pytest.raises(ExportError, match="onnxruntime can quantize to u8s8"):
        quantize_network(exported / ONNX_FILE, tmp_path / "int8.onnx", "u8s8", [])
    assert not (tmp_path / "int8.onnx").exists()


def test_an_operator_that_the_quantizer_cannot_run_is_named(exported, images, tmp_path):
    model = onnx.load(exported / ONNX_FILE)
    node = next(n for n in model.graph.node if n.op_type == "Relu" and modules_of(n))
    node.op_type, node.domain = "NoSuch", "foreign"
    model.opset_import.append(onnx.helper.make_opsetid("foreign", 1))
    onnx.save(model, tmp_path / "odd.onnx")
    message = r"quantize to u8s8; found: the operator NoSuch of the layer layer1\.0: "
    with pytest.raises(ExportError, match=message):
        quantize_network(
            tmp_path / "odd.onnx", tmp_path / "int8.onnx", "u8s8", [images.numpy()[:1]]
        )
