"""Batched views against torchvision's transforms: do both draw from the same distributions?

Each figure is measured in the finished views of 1000 images by either implementation, with other
seeds, and compared by the two-sample Kolmogorov–Smirnov statistic; that the test can fail is shown
with parameters that are wrong. All seeds are fixed: a result is the same every time.
"""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import ks_2samp

from edgesearch.data.preprocess import Preprocess
from edgesearch.pretrain import batched_views
from edgesearch.pretrain.batched_views import BatchedViews, luma
from edgesearch.pretrain.views import Augmentation, TorchvisionViews

VIEWS = 1000
SIZE = 32
RULE = Preprocess(SIZE, 3, (0.0,) * 3, (1.0,) * 3)
NOTHING = Augmentation((1.0, 1.0), *[0.0] * 9)
ALONE = 0.087
"""Largest distance of two distributions that are the same, but in one case of a thousand."""
TOGETHER = 0.12
"""Of whole recipes, in which it shows that crops are cut to whole pixels by torchvision alone."""
CAUGHT = 0.13


def coloured():
    """A blurred pattern of colours with some noise on it."""
    generator = torch.Generator().manual_seed(3)
    coarse, fine = (torch.rand(1, 3, side, side, generator=generator) for side in (6, SIZE))
    image = 0.75 * F.interpolate(coarse, (SIZE, SIZE), mode="bicubic") + 0.2 * fine
    return (image[0].clamp(0, 1) * 255).round().to(torch.uint8)


def ramps():
    """An image whose red tells the column and whose green tells the row."""
    place = ((torch.arange(SIZE) + 0.5) / SIZE * 255).round()
    columns, rows = place.expand(SIZE, SIZE), place[:, None].expand(SIZE, SIZE)
    return torch.stack([columns, rows, torch.full((SIZE, SIZE), 128.0)]).to(torch.uint8)


IMAGES = {"coloured": coloured(), "ramps": ramps()}


@cache
def by_torchvision(recipe, image):
    views = TorchvisionViews((recipe,), RULE, seed=1)
    return torch.stack([views(IMAGES[image], number, 0)[0] for number in range(VIEWS)])


def in_batches(recipe, image):
    images = IMAGES[image].expand(VIEWS, -1, -1, -1)
    return BatchedViews((recipe, recipe), RULE, seed=0)(images, torch.arange(VIEWS), 0)[0]


def of_crop(views, _):
    """Area, aspect ratio, place and direction, from how fast red and green rise."""
    inner = slice(4, -4)
    place = torch.arange(SIZE, dtype=torch.float64)[inner] - (SIZE - 1) / 2

    def side(profile):
        return (profile.double()[:, inner] * place).sum(1) / (place * place).sum() * SIZE

    width, height = side(views[:, 0, inner].mean(1)), side(views[:, 1, :, inner].mean(2))
    return {
        "area": width.abs() * height,
        "aspect": (width.abs() / height).log(),
        "x": views[:, 0].mean(dim=(1, 2)),
        "y": views[:, 1].mean(dim=(1, 2)),
        "flip": (width < 0).double(),
    }


def of_colour(views, image):
    """Factors by which brightness, contrast, saturation and sharpness differ from the image's."""

    def measured(x):
        grey = luma(x)
        return {
            "brightness": grey.mean(dim=(1, 2, 3)),
            "contrast": grey.std(dim=(1, 2, 3)),
            "saturation": (x - grey).square().mean(dim=(1, 2, 3)).sqrt(),
            "sharpness": (grey[..., 1:] - grey[..., :-1]).abs().mean(dim=(1, 2, 3)),
        }

    before = measured(image[None] / 255)
    return {name: value / before[name] for name, value in measured(views).items()}


def of_hue(views, image):
    """The turn of all colours together."""

    def colours(x):
        real, imaginary = x[:, 0] - (x[:, 1] + x[:, 2]) / 2, x[:, 1] - x[:, 2]
        return torch.complex(real, imaginary * math.sqrt(3) / 2)

    turned = colours(views) * colours(image[None] / 255).conj()
    return {"hue": torch.angle(turned.sum(dim=(1, 2)))}


def of_shares(views, _):
    """Views without colour, and views without a bright half."""
    return {
        "grey": ((views - luma(views)).abs().amax(dim=(1, 2, 3)) < 0.01).double(),
        "solarized": (views.amax(dim=(1, 2, 3)) < 0.51).double(),
    }


def distance(one, other):
    """Of figures that are rounded, since what was left alone is equal but for rounding."""
    rounded = (figure.double().round(decimals=2).numpy() for figure in (one, other))
    return float(ks_2samp(*rounded).statistic)


JITTER = replace(NOTHING, jitter_probability=0.8)
CASES = {
    "crop": (
        (replace(NOTHING, crop_scale=(0.2, 1.0), flip_probability=0.5), "ramps", of_crop),
        {
            "area": {"crop_scale": (0.08, 1.0)},
            "x": {"crop_scale": (0.6, 1.0)},
            "y": {"crop_scale": (0.6, 1.0)},
            "aspect": {"crop_scale": (0.9, 1.0)},
            "flip": {"flip_probability": 0.65},
        },
    ),
    "brightness": (
        (replace(JITTER, brightness=0.4), "coloured", of_colour),
        {"brightness": {"brightness": 0.6}},
    ),
    "contrast": (
        (replace(JITTER, contrast=0.4), "coloured", of_colour),
        {"contrast": {"contrast": 0.6}},
    ),
    "saturation": (
        (replace(JITTER, saturation=0.4), "coloured", of_colour),
        {"saturation": {"saturation": 0.6}},
    ),
    "hue": ((replace(JITTER, hue=0.1), "coloured", of_hue), {"hue": {"hue": 0.2}}),
    "blur": (
        (replace(NOTHING, blur_probability=0.5), "coloured", of_colour),
        {"sharpness": {"blur_probability": 0.8}},
    ),
    "shares": (
        (
            replace(NOTHING, grayscale_probability=0.2, solarize_probability=0.2),
            "coloured",
            of_shares,
        ),
        {"grey": {"grayscale_probability": 0.4}, "solarized": {"solarize_probability": 0.4}},
    ),
    "MoCo v2": (
        (Augmentation(), "coloured", of_colour),
        {
            "brightness": {"jitter_probability": 0.4},
            "contrast": {"contrast": 1.0},
            "saturation": {"grayscale_probability": 0.4},
            "sharpness": {"crop_scale": (0.8, 1.0)},
        },
    ),
    "BYOL's second view": (
        (
            Augmentation(
                (0.08, 1.0), saturation=0.2, blur_probability=0.1, solarize_probability=0.2
            ),
            "coloured",
            of_colour,
        ),
        {
            "brightness": {"solarize_probability": 0.6},
            "contrast": {"solarize_probability": 0.6},
            "saturation": {"grayscale_probability": 0.4},
            "sharpness": {"blur_probability": 0.6},
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_both_draw_from_the_same_distributions(name):
    (recipe, image, figures), wrong = CASES[name]
    expected = figures(by_torchvision(recipe, image), IMAGES[image])
    found = figures(in_batches(recipe, image), IMAGES[image])
    apart = {figure: distance(found[figure], expected[figure]) for figure in wrong}
    assert max(apart.values()) < (ALONE if name[0].islower() else TOGETHER), apart


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_parameter_is_caught(name):
    (recipe, image, figures), wrong = CASES[name]
    expected = figures(by_torchvision(recipe, image), IMAGES[image])
    apart = {}
    for figure, change in wrong.items():
        found = figures(in_batches(replace(recipe, **change), image), IMAGES[image])
        apart[figure] = distance(found[figure], expected[figure])
    assert min(apart.values()) > CAUGHT, apart


@pytest.mark.parametrize(
    ("name", "value", "case", "figure"),
    [
        ("BLUR_SIGMA", (0.1, 0.6), "blur", "sharpness"),
        ("SOLARIZE_FROM", 250, "shares", "solarized"),
        ("_ASPECT", (math.log(1 / 2), math.log(2)), "crop", "aspect"),
    ],
)
def test_a_wrong_constant_is_caught(monkeypatch, name, value, case, figure):
    (recipe, image, figures), _ = CASES[case]
    expected = figures(by_torchvision(recipe, image), IMAGES[image])
    monkeypatch.setattr(batched_views, name, value)
    found = figures(in_batches(recipe, image), IMAGES[image])
    assert distance(found[figure], expected[figure]) > CAUGHT


def test_crops_that_are_not_drawn_again_are_caught(monkeypatch):
    """All of the image in place of another try: what a crop that does not fit falls back to."""
    monkeypatch.setattr(batched_views, "_RETRIES", 0)
    test = test_both_draw_from_the_same_distributions
    with pytest.raises(AssertionError, match="area"):
        test("crop")
