"""Does the check let the right network pass, and no other?"""

from dataclasses import asdict

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from devices import OnnxRuntime
from edgesearch.errors import ExportError
from edgesearch.export.engines import ONNX_FILE
from edgesearch.export.verify import KnnImages, compare, verify_engine
from edgesearch.formats.fp16 import FP16
from edgesearch.formats.fp32 import FP32
from edgesearch.formats.int8 import INT8


def test_figures_by_hand():
    expected = np.array([[3.0, 4.0], [0.0, 2.0]])
    found = np.array([[3.0, 4.5], [1.0, 2.0]])
    parity = compare(expected, found)
    assert parity.images == 2
    assert parity.max_difference == pytest.approx(1 / 4)
    assert parity.min_cosine == pytest.approx(2 / 5**0.5)
    assert asdict(parity) == {
        "images": 2,
        "max_difference": parity.max_difference,
        "min_cosine": parity.min_cosine,
        "same_as_pytorch": 1.0,  # each of two has the other one as its nearest
        "knn_before": None,
        "knn_after": None,
        "knn_images": None,
        "knn_train_images": None,
        "metric": None,
        "metric_before": None,
        "metric_after": None,
        "metric_images": None,
    }


def test_the_best_class_or_the_nearest_image_is_the_same():
    expected = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    found = expected.copy()
    found[1] = [0.2, 0.8]  # now the last one is nearest to it
    assert compare(expected, found).same_as_pytorch == pytest.approx(3 / 4)
    assert compare(expected, found, logits=True).same_as_pytorch == pytest.approx(3 / 4)
    assert compare(expected[:1], found[:1]).same_as_pytorch is None


def test_of_several_outputs_the_worst_counts():
    good, bad = np.ones((3, 2, 4, 4)), np.ones((3, 5))
    changed = bad.copy()
    changed[1, 1] = 2
    parity = compare([good, bad], [good, changed])
    assert parity.max_difference == 1
    assert parity.min_cosine == pytest.approx(6 / (5 * 8) ** 0.5)


class Labelled:
    """Three classes that one value tells apart, and networks that keep it or do not."""

    def __init__(self):
        values = torch.arange(60, dtype=torch.uint8) % 3
        pixels = values.view(-1, 1, 1, 1).expand(-1, 1, 16, 16).contiguous() * 50
        self.images = KnnImages(
            pixels[:30], values[:30].long(), pixels[30:], values[30:].long(), torch.Tensor.float
        )


def by_value(pixels):
    angles = pixels.mean(axis=(1, 2, 3)) / 50
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_knn_is_that_of_the_outputs():
    images = Labelled().images
    assert images.accuracy(by_value, 10) == 1
    assert images.accuracy(lambda pixels: np.ones((len(pixels), 2), np.float32), 10) < 0.5
    # Maps are pooled, and the last batch may be smaller.
    assert images.accuracy(lambda pixels: [by_value(pixels)[..., None, None]], 7) == 1
    sizes = set()
    whole = images.whole_batches(7)
    whole.accuracy(lambda pixels: sizes.add(len(pixels)) or by_value(pixels), 7)
    assert sizes == {7}
    assert len(whole.train) == len(whole.test_labels) == 28
    few = images.first(8)
    assert [len(part) for part in (few.train, few.train_labels, few.test, few.test_labels)] == [
        8
    ] * 4
    assert torch.equal(few.test, images.test[:8])


def test_a_loss_of_knn_accuracy_is_refused(exported, images, expected):
    knn = Labelled().images
    path, runtime = exported / ONNX_FILE, OnnxRuntime()
    session = runtime.load(path)
    run = lambda pixels: list(session.run({"images": pixels}).values())  # noqa: E731
    true = knn.accuracy(run, 1)
    parity = verify_engine(path, runtime, images.numpy(), expected, INT8, judged_by=(knn, true))
    assert (parity.knn_before, parity.knn_after) == (true, true)
    assert parity.knn_images == 30
    # Of other precisions it is only told.
    fp32 = verify_engine(path, runtime, images.numpy(), expected, FP32, judged_by=(knn, true + 0.5))
    assert (fp32.knn_before, fp32.knn_after) == (true + 0.5, true)
    # One of thirty images is no loss to be told from chance; two are.
    verify_engine(path, runtime, images.numpy(), expected, INT8, judged_by=(knn, true + 1 / 30))
    message = r"a loss of kNN accuracy of at most 3\.3% for .*onnx \(int8\); found: .* on 30 images"
    with pytest.raises(ExportError, match=message):
        verify_engine(path, runtime, images.numpy(), expected, INT8, judged_by=(knn, true + 2 / 30))


def test_equal_and_opposite():
    outputs = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    assert compare(outputs, outputs).max_difference == 0
    assert compare(outputs, outputs).min_cosine == pytest.approx(1)
    assert compare(outputs, -outputs).max_difference == pytest.approx(2)
    assert compare(outputs, -outputs).min_cosine == pytest.approx(-1)


def test_the_right_network_passes(exported, images, expected):
    parity = verify_engine(exported / ONNX_FILE, OnnxRuntime(), images.numpy(), expected, FP32)
    assert parity.images == len(images)
    assert parity.max_difference < 1e-5


@pytest.fixture
def of_five(exported, tmp_path):
    """The same network for batches of five images."""
    model = onnx.load(exported / ONNX_FILE)
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.shape.dim[0].dim_value = 5
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "five.onnx")
    return tmp_path / "five.onnx"


def test_a_rest_that_fills_no_batch_is_left_out(of_five, images, expected):
    parity = verify_engine(of_five, OnnxRuntime(), images.numpy(), expected, FP32)
    assert parity.images == 30


def test_fewer_images_than_a_batch_are_refused(of_five, images, expected):
    message = r"at least 5 images .* to verify five\.onnx on; found: 4 images"
    with pytest.raises(ExportError, match=message):
        verify_engine(of_five, OnnxRuntime(), images.numpy()[:4], expected, FP32)


@pytest.mark.parametrize("precision", [FP32, FP16], ids=["fp32", "fp16"])
def test_one_changed_weight_is_found(exported, images, expected, tmp_path, precision):
    model = onnx.load(exported / ONNX_FILE)
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0, 1, 1] += 2.0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path = tmp_path / "changed.onnx"
    onnx.save(model, path)
    message = (
        rf"changed.onnx equal to the trained network up to .* \({precision.name}\); found: a "
        r"difference of \d.* and cosine 0\.\d+ on 32 images"
    )
    with pytest.raises(ExportError, match=message):
        verify_engine(path, OnnxRuntime(), images.numpy(), expected, precision)


def test_outputs_that_are_no_numbers_are_found(exported, images, expected):
    pixels = images.numpy().copy()
    pixels[3, 0, 5, 5] = np.nan
    with pytest.raises(ExportError, match="a difference of nan"):
        verify_engine(exported / ONNX_FILE, OnnxRuntime(), pixels, expected, FP32)
