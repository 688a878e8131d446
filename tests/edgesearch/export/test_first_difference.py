"""A weight that was changed is found by the layer that it is of."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgesearch.errors import ExportError
from edgesearch.export.engines import ONNX_FILE, build_engines
from edgesearch.export.first_difference import differs_from_file, differs_from_network
from edgesearch.formats.fp16 import FP16
from edgesearch.formats.int8 import INT8
from edgesearch.formats.precision import Calibration


def alike(expected, found):
    return np.abs(expected - found).max() <= 1e-2 * np.abs(expected).max()


def change(path, changed_path, name):
    """Write a file in which one weight is another one."""
    model = onnx.load(path)
    (tensor,) = (t for t in model.graph.initializer if t.name.startswith(name) and len(t.dims) == 4)
    values = numpy_helper.to_array(tensor).copy()
    values[0] = -values[0] + values.dtype.type(1)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, changed_path)
    return changed_path


@pytest.mark.parametrize(
    ("weight", "layer"),
    [
        ("conv1.weight", "bn1"),
        ("layer1.1.conv2.weight", "layer1.1.bn2"),
        ("layer2.0.downsample.0.weight", "layer2.0.downsample.1"),
    ],
)
def test_the_layer_is_named(exported, subnet, images, tmp_path, weight, layer):
    path, pixels = exported / ONNX_FILE, images.numpy()[:1]
    none = "no single layer exceeds the tolerance"
    assert differs_from_network(path, subnet, pixels, alike).startswith(none)
    changed = change(path, tmp_path / "changed.onnx", weight)
    words = f"the first layer that differs is {layer}"
    assert differs_from_network(changed, subnet, pixels, alike) == words
    assert differs_from_file(changed, path, pixels, alike) == words


def test_in_half_precision(exported, images, tmp_path):
    path, pixels = exported / ONNX_FILE, images.numpy()[:1]
    half = tmp_path / "half.onnx"
    FP16.write(path, half, "fp16")
    assert differs_from_file(half, path, pixels, alike).startswith("no single layer")
    changed = change(half, tmp_path / "changed.onnx", "layer2.0.conv1.weight")
    words = "the first layer that differs is layer2.0.bn1"
    assert differs_from_file(changed, path, pixels, alike) == words


@pytest.mark.parametrize("form", ["u8s8", "s8s8-symmetric"])
def test_in_eight_bits(exported, images, tmp_path, form):
    path, pixels = exported / ONNX_FILE, images.numpy()[:1]
    quantized = tmp_path / "int8.onnx"
    batches = [image[None] for image in images.numpy()]
    INT8.write(path, quantized, form, calibration=Calibration(batches))

    def roughly(expected, found):
        lengths = np.linalg.norm(expected) * np.linalg.norm(found)
        return float((expected * found).sum() / lengths) > 0.97

    assert differs_from_file(quantized, path, pixels, roughly).startswith("no single layer")
    changed = tmp_path / "changed.onnx"
    model = onnx.load(quantized)
    (tensor,) = (t for t in model.graph.initializer if t.name == "layer2.0.conv1.weight_quantized")
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(-values), tensor.name))
    onnx.save(model, changed)
    words = "the first layer that differs is layer2.0"
    assert differs_from_file(changed, path, pixels, roughly).startswith(words)


@pytest.mark.parametrize("precision", [FP16, INT8], ids=["fp16", "int8"])
def test_a_failed_check_says_where(exported, subnet, images, tmp_path, precision):
    name = precision.file
    shutil.copy(exported / ONNX_FILE, tmp_path)
    FP16.write(exported / ONNX_FILE, tmp_path / "half.onnx", "fp16")
    change(tmp_path / "half.onnx", tmp_path / name, "layer2.0.conv1.weight")
    message = rf"{name} equal to .* on 32 images; the first layer that differs is layer2\.0\.bn1"
    with pytest.raises(ExportError, match=message):
        build_engines(tmp_path, subnet, images, None, precision)


def test_so_does_that_of_the_exported_file(exported, subnet, images, tmp_path):
    change(exported / ONNX_FILE, tmp_path / ONNX_FILE, "layer1.0.conv1.weight")
    message = r"the first layer that differs is layer1\.0\.bn1"
    with pytest.raises(ExportError, match=message):
        build_engines(tmp_path, subnet, images, None)
