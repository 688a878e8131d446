"""Shares of labels, and classes that are missing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgesearch.data.boxes import Boxes
from edgesearch.data.image_set import ImageSet
from edgesearch.data.label_maps import LabelMap
from edgesearch.errors import DataError, TrainingError
from edgesearch.tasks.task_images import share_out

PIXELS = torch.zeros(1, 4, 4, dtype=torch.uint8)


def images_of(*labels, names=("a", "b")):
    return ImageSet((PIXELS,) * len(labels), 1, Path("made"), torch.tensor(labels), names)


def with_boxes(*labels):
    targets = tuple(
        Boxes(np.tile(np.float32([0, 0, 1, 1]), (len(each), 1)), np.array(each, np.int64),
              np.zeros(len(each), bool), 4, 4)
        for each in labels
    )  # fmt: skip
    return replace(images_of(*[0] * len(labels)), labels=None, targets=targets)


def test_of_each_class_the_same_share_and_at_least_one():
    images = share_out(images_of(*[0] * 40, *[1] * 4), images_of(0, 1), 0.1, 0, 0)
    assert images.train.labels.tolist() == [0] * 4 + [1]
    (notice,) = images.notices
    assert "4 training images of b, 40 of a" in notice


def test_the_seed_decides_which():
    train = replace(images_of(*[0, 1] * 50), items=tuple(PIXELS + n for n in range(100)))
    drawn = [
        [int(each[0, 0, 0]) for each in share_out(train, train, 0.2, 0, seed).train.items]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_class_without_training_images_is_refused_and_without_test_images_told():
    with pytest.raises(DataError, match="none of b"):
        share_out(images_of(0, 0), images_of(0, 1), 1, 0, 0)
    (notice,) = share_out(images_of(0, 1), images_of(0), 1, 0, 0).notices
    assert "no test images of b" in notice
    with pytest.raises(DataError, match="none of a"):
        share_out(with_boxes([1], [], [1, 1]), with_boxes([0]), 1, 0, 0)


def test_black_and_white_maps_have_no_class(tmp_path):
    values = np.array([[0, 255], [0, 0]], np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    targets = (LabelMap(((0, tmp_path / "a.png"),), 2),) * 2
    pixels = torch.zeros(1, 2, 2, dtype=torch.uint8)
    images = replace(images_of(0, 0), items=(pixels,) * 2, labels=None, targets=targets)
    with pytest.raises(DataError, match="none of b.*255 means no class"):
        share_out(images, images, 1, 0, 0)


def test_one_class_cannot_be_told_apart():
    one = images_of(0, 0, names=("a",))
    with pytest.raises(DataError, match="two classes or more .*; found: a"):
        share_out(one, one, 1, 0, 0)
    boxes = replace(with_boxes([0], [0]), class_names=("a",))
    assert len(share_out(boxes, boxes, 1, 0, 0).train) == 2


def test_too_few_labels():
    with pytest.raises(TrainingError, match="two or more training images"):
        share_out(images_of(0, names=("a",)), images_of(0, names=("a",)), 1, 0, 0)
    with pytest.raises(TrainingError, match="to choose an epoch on"):
        share_out(images_of(0, 1), images_of(0, 1), 1, 0.5, 0)
