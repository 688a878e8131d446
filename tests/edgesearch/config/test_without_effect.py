"""Given options that have no effect are told in one line each, by the mark in their settings."""

import warnings
from typing import get_args

import pytest

from edgesearch.config import Config, load_config, shipped_configs
from edgesearch.errors import UserNotice
from edgesearch.settings import AppliesTo, Settings

CASES = {
    "search.population": (["search.population=9"], ["search.strategy=evolution"]),
    "device.python": (["device.python=python3.11"], ["device.host=board"]),
    "device.ssh_config": (["device.ssh_config=mine"], ["device.host=board"]),
    "pretrain.workers": (["pretrain.workers=3"], ["pretrain.augmentation.batched=false"]),
    "pretrain.knn_k": (
        ["pretrain.knn_k=5", "pretrain.knn_every_epochs=0"],
        ["pretrain.knn_every_epochs=5"],
    ),
    "export.quantization": (["export.quantization=entropy"], ["device.precision=int8"]),
    **{
        f"pretrain.augmentation.jitter.{name}": (
            [
                f"pretrain.augmentation.jitter.{name}=0.3",
                "pretrain.augmentation.jitter.probability=0",
            ],
            ["pretrain.augmentation.jitter.probability=0.5"],
        )
        for name in ("brightness", "contrast", "saturation", "hue")
    },
}
"""By option: overrides under which it has no effect, and those under which it has one."""


def told(*overrides, config="cifar10"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        root = [] if config == "quickstart" else ["data.root=images"]  # the digits have none
        load_config(config, [*root, *overrides])
    return [str(each.message) for each in caught if issubclass(each.category, UserNotice)]


def marked(schema=Config, path=""):
    for name, field in schema.model_fields.items():
        if any(isinstance(mark, AppliesTo) for mark in field.metadata):
            yield path + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Settings):
                yield from marked(kind, f"{path}{name}.")


def test_all_are_tried():
    assert sorted(set(marked())) == sorted(CASES)


@pytest.mark.parametrize("option", CASES)
def test_it_is_told_unless_it_applies(option):
    without, applies = CASES[option]
    lines = [line for line in told(*without) if line.startswith(f"{option} has no effect unless ")]
    assert len(lines) == 1
    assert not [line for line in told(*without, *applies) if line.startswith(f"{option} has")]


@pytest.mark.parametrize("name", shipped_configs())
def test_shipped_configurations_say_nothing_without_effect_but_their_own(name):
    lines = told(config=name)
    assert lines == []


def test_a_default_or_an_option_that_is_off_needs_no_word():
    assert told("pretrain.workers=2", "export.quantization=minmax", "search.population=") == []
