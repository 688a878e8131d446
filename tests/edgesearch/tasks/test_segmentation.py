"""Segmentation: samples, heads and figures."""

import numpy as np
import pytest
import torch
from PIL import Image

from edgesearch.data.label_maps import IGNORED, LabelMap
from edgesearch.data.preprocess import Preprocess
from edgesearch.tasks.backbone import Backbone
from edgesearch.tasks.known_tasks import TASKS
from edgesearch.tasks.model import add_head
from edgesearch.tasks.segmentation import Segmentation
from edgesearch.tasks.settings import FinetuneSettings

SIZE = 64


def task_of(fit="stretch"):
    settings = FinetuneSettings(task="segmentation", fit=fit)
    rule = Preprocess(SIZE, 3, (0.0,) * 3, (1.0,) * 3, fit=fit)
    return Segmentation(settings, ("background", "cell"), rule, 0)


@pytest.fixture
def sample(tmp_path):
    """An image (3, 40, 80) that is white where its map is 1."""
    values = np.zeros((40, 80), np.uint8)
    values[10:30, 20:60] = 1
    Image.fromarray(values).save(tmp_path / "map.png")
    image = torch.from_numpy(values * 255).repeat(3, 1, 1)
    return image, LabelMap(((0, tmp_path / "map.png"),), 2)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_maps_follow_the_image(sample, fit):
    task = task_of(fit)
    pairs = [task.fitted(*sample), *(task.changed(*sample, 0, epoch) for epoch in range(4))]
    for image, labels in pairs:
        assert labels.shape == (SIZE, SIZE)
        judged = labels != IGNORED
        same = ((image[0] > 90) == (labels == 1)) | ~judged
        assert same.float().mean() > 0.93
    borders = (pairs[0][1] == IGNORED).float().mean()
    assert borders == (0.5 if fit == "letterbox" else 0)


@pytest.mark.parametrize("head", TASKS["segmentation"].heads)
def test_heads_learn_a_map(sample, head):
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3 if n == 0 else 16, 16, 3, 2, 1) for n in range(4)]
    trunk = Backbone({f"part{n}": layer for n, layer in enumerate(layers)}, SIZE, 3)
    task, model = task_of(), add_head("segmentation", head, trunk, 2, 0)
    image, labels = task.fitted(*sample)
    images = task.preprocess.normalise(torch.stack([image, image.flip(2)]))
    wanted = task.collate([labels, labels], torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = []
    for _ in range(10):
        raw = model.raw(images)
        assert raw.shape == (2, 2, SIZE, SIZE)
        loss = model.head.loss(raw, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]


def test_figures_by_hand():
    wanted = np.array([[0, 0, 1, 1], [1, 1, IGNORED, IGNORED]], np.uint8)
    found = np.array([[0, 1, 1, 1], [1, 0, 1, 0]], np.uint8)
    figures = task_of().figures([found], [wanted])
    assert figures["iou background"] == pytest.approx(1 / 3)
    assert figures["iou cell"] == pytest.approx(3 / 5)
    assert figures["mean_iou"] == pytest.approx((1 / 3 + 3 / 5) / 2)
    assert figures["pixel_accuracy"] == pytest.approx(4 / 6)
