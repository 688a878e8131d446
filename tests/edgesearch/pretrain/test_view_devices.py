"""Batched views on any device, and of all that the methods' recipes ask for."""

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from edgesearch.cli.stages import pretrain_arguments
from edgesearch.config import load_config, shipped_configs
from edgesearch.data.image_set import ImageSet
from edgesearch.data.preprocess import Preprocess
from edgesearch.pretrain import batched_views, loader
from edgesearch.pretrain.batched_views import BatchedViews, blur, to_device
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.methods import METHODS
from edgesearch.pretrain.views import Augmentation

EVERYTHING = Augmentation(solarize_probability=0.5)
GPU = pytest.param("cuda", marks=pytest.mark.gpu)


def rule(channels=3, resolution=16):
    return Preprocess(resolution, channels, (0.5,) * channels, (0.25,) * channels)


def images_of(count=24, channels=3):
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, 16, 16)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def set_of(images):
    return ImageSet(tuple(images), images.shape[1], Path("random"))


@pytest.fixture
def pretended_gpu(monkeypatch):
    """Tensors on `cuda` without a GPU: they have no values, but mixing devices is refused."""
    monkeypatch.setattr(batched_views, "to_device", lambda tensor, device: tensor.to(device))
    with FakeTensorMode(allow_non_fake_inputs=True):
        with pytest.raises(RuntimeError, match="found at least two devices, cuda:0 and cpu"):
            torch.zeros(2, 2, device="cuda") @ torch.zeros(2, 2)
        yield torch.device("cuda:0")


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_is_left_on_the_cpu(channels, pretended_gpu):
    images = torch.zeros(8, channels, 16, 16, dtype=torch.uint8, device=pretended_gpu)
    # Which images are blurred depends on values: that part by itself, below.
    recipe = replace(EVERYTHING, blur_probability=0.0)
    indices = SimpleNamespace(numpy=lambda: np.arange(8))  # a tensor would have no values here
    for view in BatchedViews((recipe,) * 2, rule(channels), 0)(images, indices, 0):
        assert view.device == pretended_gpu
        assert view.shape == (8, channels, 16, 16)


def test_no_part_of_a_blur_is_left_on_the_cpu(pretended_gpu):
    images = torch.zeros(8, 3, 16, 16, device=pretended_gpu)
    assert blur(images, torch.ones(8, device=pretended_gpu), 3).device == pretended_gpu


@pytest.mark.parametrize("batched", [True, False])
def test_batches_come_on_the_device(batched):
    made = make_loader(
        set_of(images_of()),
        (EVERYTHING,) * 2,
        rule(),
        batched=batched,
        batch_size=8,
        seed=0,
        workers=0,
        device="meta",
    )
    batches = list(made.batches(0, 1))
    assert len(batches) == 2
    assert {view.device.type for batch in batches for view in batch} == {"meta"}
    if batched:
        assert made.images.device.type == "meta"  # moved once


def test_images_too_large_for_a_gpu_stay_where_they_are(monkeypatch):
    images = images_of()
    for free, fits in ((4 * images.nbytes, True), (4 * images.nbytes - 4, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 0))
        assert loader._fits(images, torch.device("cuda")) == fits
    assert loader._fits(images, torch.device("cpu"))


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_every_device_makes_the_same_views(device):
    images, indices = images_of(200), torch.arange(200)
    views = BatchedViews((EVERYTHING,) * 2, rule(), 0)
    expected = views(images, indices, 3)
    found = views(images.to(device), indices, 3)
    for one, other in zip(found, expected, strict=True):
        assert one.device.type == device
        # A pixel at the edge of being solarized may fall on either side.
        apart = (one.cpu() - other).abs() > 5e-3
        assert float(apart.float().mean()) < 1e-3
    assert all(map(torch.equal, views(images.to(device), indices, 3), found))


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_images_that_do_not_stay_on_the_device_give_the_same_batches(device, monkeypatch):
    def batches():
        made = make_loader(
            set_of(images_of()),
            (EVERYTHING,) * 2,
            rule(),
            batched=True,
            batch_size=8,
            seed=0,
            workers=0,
            device=device,
        )
        return made, list(made.batches(0, 0))

    resident, expected = batches()
    monkeypatch.setattr(loader, "_fits", lambda images, device: False)
    moved, found = batches()
    assert resident.images.device.type == device
    assert moved.images.device.type == "cpu"
    for batch, other in zip(found, expected, strict=True):
        assert all(map(torch.equal, batch, other))


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_what_is_on_the_device_stays(device):
    tensor = torch.ones(3, device=device)
    assert to_device(tensor, torch.device(device)).data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("field", [field.name for field in fields(Augmentation)])
def test_every_field_of_a_recipe_counts(field):
    value = (0.5, 0.6) if field == "crop_scale" else 0.05
    base = replace(EVERYTHING, jitter_probability=1.0)
    views = [
        BatchedViews((recipe,) * 2, rule(), 0)(images_of(200), torch.arange(200), 0)[0]
        for recipe in (base, replace(base, **{field: value}))
    ]
    changed = (views[0] - views[1]).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert changed.float().mean() > 0.1


@pytest.mark.parametrize("name", shipped_configs())
def test_recipes_of_all_methods_can_be_made_in_batches(name):
    config = load_config(name, [] if name == "quickstart" else ["data.root=images"])
    arguments = pretrain_arguments(config)
    channels = arguments["space"].in_channels
    method = METHODS[arguments["method"]](arguments["space"], **arguments["method_options"])
    recipes = method.views(arguments["views"].augmentation)
    made = BatchedViews(recipes, rule(channels), 0)(images_of(8, channels), torch.arange(8), 0)
    assert [view.shape for view in made] == [(8, channels, 16, 16)] * 2
    assert all(view.isfinite().all() for view in made)
