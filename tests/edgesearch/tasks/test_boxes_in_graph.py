"""A detector's post-processing in ONNX graphs, against that of the package, on onnxruntime."""

import numpy as np
import onnx
import pytest
import torch

from devices import OnnxRuntime, OrtBuilder
from edgesearch.data.preprocess import Preprocess
from edgesearch.formats.fp16 import FP16
from edgesearch.formats.int8 import INT8
from edgesearch.formats.onnx_export import export_network
from edgesearch.formats.onnx_files import save_model
from edgesearch.formats.precision import Calibration
from edgesearch.tasks import boxes_in_graph
from edgesearch.tasks.backbone import Backbone
from edgesearch.tasks.boxes_in_graph import BoxesInGraph, suppression
from edgesearch.tasks.detection import MOST, Detection, Detections
from edgesearch.tasks.known_tasks import TASKS
from edgesearch.tasks.model import add_head, outputs_of
from edgesearch.tasks.settings import FinetuneSettings

SIZE, BATCH = 64, 2
IN_GRAPH = BoxesInGraph()


@pytest.fixture(scope="module")
def task():
    rule = Preprocess(SIZE, 3, (0.0,) * 3, (1.0,) * 3, fit="stretch")
    return Detection(FinetuneSettings(task="detection"), ("a", "b", "c"), rule, 0)


def run(path, **inputs):
    session = OnnxRuntime().load(path)
    try:
        return list(session.run(inputs).values())
    finally:
        session.close()


def same(found, expected):
    assert len(found) == len(expected)
    for given, wanted in zip(found, expected, strict=True):
        for part in ("labels", "scores", "corners"):
            assert np.array_equal(getattr(given, part), getattr(wanted, part)), part


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("anchors", [2, 50, 3000])
@pytest.mark.parametrize("scale", [1.0, 0.011, 0.0])
def test_the_graph_chooses_as_the_package_does(task, tmp_path, classes, anchors, scale):
    random = np.random.default_rng(anchors)
    centres, sizes = random.random((2, BATCH, anchors, 2))
    boxes = np.concatenate([centres - sizes / 8, centres + sizes / 8], -1).astype(np.float32)
    scores = (scale * random.random((BATCH, anchors, classes)) ** 4).astype(np.float32)
    path = tmp_path / "alone.onnx"
    save_model(suppression(anchors, classes, "batch"), path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = OnnxRuntime(batch=BATCH).load(path)
    outputs = session.run({"all_scores": scores, "all_boxes": boxes})
    session.close()
    assert outputs["boxes"].shape == (BATCH, min(MOST, anchors * classes, 400), 4)
    found = IN_GRAPH.predictions(list(outputs.values()))
    same(found, task.predictions([scores, boxes]))
    if anchors > 2:
        assert any(len(each.labels) for each in found) == bool(scale)
    if anchors == 3000 and scale == 1:
        assert all(len(each.labels) == MOST for each in found)


@pytest.mark.parametrize("seed", range(5))
def test_equal_scores_and_overlaps_of_a_half_are_treated_alike(task, tmp_path, seed):
    """As in eight bits: of equal scores the first counts, and an overlap of a half is none."""
    random = np.random.default_rng(seed)
    corners = random.integers(0, 7, (BATCH, 900, 2))
    boxes = np.concatenate([corners, corners + random.integers(1, 4, (BATCH, 900, 2))], -1) / 8
    scores = random.integers(0, 32, (BATCH, 900, 3)) / 32
    path = tmp_path / "alone.onnx"
    save_model(suppression(900, 3, BATCH), path)
    inputs = {"all_scores": scores.astype(np.float32), "all_boxes": boxes.astype(np.float32)}
    found = IN_GRAPH.predictions(run(path, **inputs))
    same(found, task.predictions(list(inputs.values())))


@pytest.fixture(scope="module", params=TASKS["detection"].heads)
def detector(request, tmp_path_factory):
    """A network that finds many boxes, images, and the folder with its ONNX file."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3 if n == 0 else 8, 8, 3, 2, 1) for n in range(5)]
    backbone = Backbone({f"part{n}": layer for n, layer in enumerate(layers)}, SIZE, 3)
    model = add_head("detection", request.param, backbone, 3, 0).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.head.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    images = torch.randn(16, 3, SIZE, SIZE, generator=generator)
    folder = tmp_path_factory.mktemp(request.param)
    export_network(
        model,
        folder / "subnet.onnx",
        input_shape=(BATCH, 3, SIZE, SIZE),
        output_names=model.output_names,
        metadata={"classes": "abc"},
    )
    return model, images.numpy(), folder


def joined(folder, name="subnet.onnx"):
    path = folder / name.replace("subnet", "detector")
    save_model(IN_GRAPH.joined(onnx.load(folder / name)), path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return path


@pytest.mark.parametrize("ending", [".onnx", ".ort"])
def test_a_detector_with_it_finds_what_pytorch_finds(detector, task, ending):
    model, images, folder = detector
    path, plain = joined(folder), folder / "subnet.onnx"
    assert {each.key: each.value for each in onnx.load(path).metadata_props} == {"classes": "abc"}
    if ending == ".ort":
        for each in (path, plain):
            OrtBuilder().build(each, each.with_suffix(".ort"))
        path, plain = path.with_suffix(".ort"), plain.with_suffix(".ort")
    with torch.no_grad():
        outputs = outputs_of(model, torch.from_numpy(images[:BATCH]))
    expected = task.predictions([each.numpy() for each in outputs])
    found = IN_GRAPH.predictions(run(path, images=images[:BATCH]))
    match = IN_GRAPH.match(expected, found, 1e-3)
    assert match.count >= 20 and match.same >= 0.98 * match.count
    # Its own network's outputs are treated just as in the package.
    same(found, task.predictions(run(plain, images=images[:BATCH])))


@pytest.mark.parametrize("precision", [INT8, FP16], ids=lambda each: each.name)
def test_it_stays_in_single_precision(detector, task, precision):
    model, images, folder = detector
    batches = Calibration(np.split(images, len(images) // BATCH))
    form = "u8s8" if precision is INT8 else "fp16"
    path = folder / precision.file
    precision.write(folder / "subnet.onnx", path, form, calibration=batches)
    graph = onnx.load(joined(folder, precision.file)).graph
    added = [node for node in graph.node if any(name.startswith("nms_") for name in node.output)]
    assert {"NonMaxSuppression", "TopK"} <= {node.op_type for node in added}
    quantised = {"QuantizeLinear", "DequantizeLinear", "Cast"}
    assert not quantised & {node.op_type for node in added}
    found = IN_GRAPH.predictions(
        run(folder / path.name.replace("subnet", "detector"), images=images[:BATCH])
    )
    same(found, task.predictions(run(path, images=images[:BATCH])))


def test_a_match_counts_what_both_have():
    corners = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    one = Detections(corners, np.array([0.9, 0.5]), np.array([0, 1]))
    moved = Detections(corners + 0.01, np.array([0.9, 0.5]), np.array([0, 1]))
    other = Detections(corners, np.array([0.9, 0.5]), np.array([0, 0]))
    none = Detections(corners[:0], np.zeros(0), np.zeros(0, int))
    same_counts = [
        IN_GRAPH.match([one], [given], tolerance).same
        for given, tolerance in [(one, 0), (moved, 0.02), (moved, 0.005), (other, 0.5), (none, 1)]
    ]
    assert same_counts == [2, 2, 0, 1, 0]
    assert IN_GRAPH.match([one], [moved], 0.02).max_difference == pytest.approx(0.01, abs=1e-6)
    assert IN_GRAPH.match([none, one], [one, none], 1).count == 4


def test_constants_are_those_of_the_package(monkeypatch):
    monkeypatch.setattr(boxes_in_graph, "MOST", 7)
    (boxes, *_) = suppression(100, 2, 1).graph.output
    assert [size.dim_value for size in boxes.type.tensor_type.shape.dim] == [1, 7, 4]
