"""The sources by name, and the digits."""

from typing import get_args

import pytest
import torch
from pydantic import ValidationError

from edgesearch.data.digits import open_digits
from edgesearch.data.open_images import SOURCES, open_images
from edgesearch.data.settings import DataSettings


def test_every_source_of_the_settings_can_be_opened():
    assert set(SOURCES) == set(get_args(DataSettings.model_fields["source"].annotation))


def test_digits():
    splits = open_images(DataSettings(source="digits"), 1)
    assert (len(splits.train), len(splits.test)) == (1438, 359)
    assert splits.train.class_names == tuple("0123456789")
    pixels = splits.train.stack()
    assert pixels.shape == (1438, 1, 8, 8)
    assert (pixels.min(), pixels.max()) == (0, 255)
    share = splits.test.labels.bincount() / splits.train.labels.bincount()
    assert 0.23 < share.min() < share.max() < 0.27
    colour = open_images(DataSettings(source="digits"), 3).train.load(0)
    assert (colour == splits.train.load(0).expand(3, 8, 8)).all()


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    found = open_digits(DataSettings(source="digits"), None, 1, lambda folder: False).train
    wanted = load_digits()
    assert (
        (torch.stack(found.items)[:, 0] * (16 / 255))
        .round()
        .equal(torch.from_numpy(wanted.images).float())
    )
    assert found.labels.tolist() == wanted.target.tolist()
    assert found.class_names == tuple(map(str, wanted.target_names))


def test_what_is_held_out_depends_on_the_seed_alone():
    digits = DataSettings(source="digits")
    digests = [open_images(digits, 1, seed).test.digest() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_keys_without_effect_are_refused():
    with pytest.raises(ValidationError, match="null is required for data.source=digits"):
        DataSettings(source="digits", root="x")
