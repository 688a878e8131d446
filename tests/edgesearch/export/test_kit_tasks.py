"""What the kit makes of a detector's and a segmenter's outputs, against the package's own ways."""

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from edgesearch.data.preprocess import Preprocess
from edgesearch.export import kit_program
from edgesearch.tasks import detection
from edgesearch.tasks.boxes_in_graph import NO_BOX, BoxesInGraph
from edgesearch.tasks.detection import Detection
from edgesearch.tasks.settings import FinetuneSettings

SIZE, HEIGHT, WIDTH = 32, 30, 60
LABELS = ["cat", "dog"]


def rule(fit):
    return Preprocess(SIZE, 3, (0.5,) * 3, (0.25,) * 3, fit=fit)


def manifest(output, fit):
    return {"output": output, "preprocess": rule(fit).to_dict(), "classes": LABELS}


@pytest.fixture
def image():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("fit", ["crop", "stretch", "letterbox"])
def test_images_are_prepared_as_in_training(image, fit):
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    expected = rule(fit).normalise(rule(fit)(pixels)[None])[0]
    found = kit_program.prepare(image, rule(fit).to_dict())
    # Pillow and torch differ by the rounding of single pixels.
    assert np.abs(found - expected.numpy()).max() <= 1.01 / 255 / 0.25


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_boxes_are_those_of_the_package(image, fit, monkeypatch):
    generator = np.random.default_rng(1)
    sides = np.sort(generator.random((40, 2, 2)), axis=1)  # two corners
    corners = sides.reshape(40, 4).astype(np.float32)
    if fit == "letterbox":
        corners[:, 1::2] *= 0.5  # within the image
    scores = generator.random((40, 2)).astype(np.float32)
    monkeypatch.setattr(detection, "LEAST_SCORE", kit_program.LEAST_SCORE)
    settings = FinetuneSettings(task="detection", fit=fit)
    (expected,) = Detection(settings, LABELS, rule(fit), 0).predictions(
        [scores[None], corners[None]]
    )
    outputs = {"scores": scores, "boxes": corners}
    found = kit_program.describe(outputs, LABELS, manifest("detection", fit), (HEIGHT, WIDTH))
    boxes = found["boxes"]
    assert 4 < len(boxes) == len(expected.labels) < 80
    assert [each["class"] for each in boxes] == expected.labels.tolist()
    high = 0.5 if fit == "letterbox" else 1.0  # of the input
    wanted = expected.corners / np.array([1, high] * 2) * np.array([WIDTH, HEIGHT] * 2)
    assert np.abs(np.array([each["box"] for each in boxes]) - wanted).max() <= 0.051


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_boxes_that_the_graph_has_chosen_are_the_same(image, fit):
    generator = np.random.default_rng(1)
    corners = np.sort(generator.random((40, 2, 2)), axis=1).reshape(40, 4).astype(np.float32)
    scores = generator.random((40, 2)).astype(np.float32)
    about, size = manifest("detection", fit), (HEIGHT, WIDTH)
    raw = {"scores": scores, "boxes": corners}
    expected = kit_program.describe(raw, LABELS, about, size)["boxes"]
    model = BoxesInGraph().alone({name: (1, *each.shape) for name, each in raw.items()})
    model.ir_version = 8
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = session.run(None, {f"all_{name}": each[None] for name, each in raw.items()})
    outputs = {name: each[0] for name, each in zip(BoxesInGraph.output_names, found, strict=True)}
    assert (outputs["labels"] == NO_BOX).any()
    boxes = kit_program.describe(outputs, LABELS, about, size)["boxes"]
    assert len(boxes) > 4 and boxes == expected
    drawn = kit_program.draw(image, outputs, {"boxes": boxes}, LABELS, about)
    assert (np.asarray(drawn) != image).any()


def test_boxes_are_drawn_where_they_are(image):
    outputs = {
        "scores": np.array([[0.9, 0.1]], np.float32),
        "boxes": np.array([[0.5, 0.5, 0.9, 0.9]], np.float32),
    }
    about = manifest("detection", "stretch")
    found = kit_program.describe(outputs, LABELS, about, (HEIGHT, WIDTH))
    grey = np.full_like(image, 128)
    drawn = np.asarray(kit_program.draw(grey, outputs, found, LABELS, about))
    assert drawn.shape == image.shape
    assert tuple(drawn[15, 45]) == kit_program.COLOURS[0]  # the upper side
    assert (drawn[:14, :28] == 128).all()


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_pixels_of_the_second_class_are_coloured(image, fit):
    logits = np.zeros((2, SIZE, SIZE), np.float32)
    lower = slice(SIZE // 2 if fit == "stretch" else SIZE // 4, None)
    logits[1, lower] = 1  # the lower half of the image
    about = manifest("segmentation", fit)
    found = kit_program.describe({"logits": logits}, LABELS, about, (HEIGHT, WIDTH))
    assert [each["share"] for each in found["pixels"]] == [0.5, 0.5]
    drawn = kit_program.draw(np.zeros_like(image), {"logits": logits}, {}, LABELS, about)
    assert isinstance(drawn, Image.Image)
    pixels = np.asarray(drawn)
    assert (pixels[: HEIGHT // 2] == 0).all()
    assert (pixels[HEIGHT // 2 :] == np.array(kit_program.COLOURS[1]) // 2).all()
