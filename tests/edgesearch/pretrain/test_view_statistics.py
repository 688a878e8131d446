"""Batched views against torchvision's transforms: do both draw from the same distributions?

Figures are measured in the finished views of 1000 images and compared with those of torchvision's
views by the two-sample Kolmogorov–Smirnov statistic; that the test can fail is shown with
parameters that are wrong. All seeds are fixed: a result is the same every time. Torchvision's
figures are stored in view_statistics.npz, which this file writes when it is run as a program.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import ks_2samp

from edgesearch.data.preprocess import Preprocess
from edgesearch.pretrain import batched_views
from edgesearch.pretrain.batched_views import BatchedViews, luma
from edgesearch.pretrain.settings import AugmentationSettings
from edgesearch.pretrain.views import TorchvisionViews

REFERENCE = Path(__file__).with_name("view_statistics.npz")
VIEWS, FEW = 1000, 150
SIZE = 32
RULE = Preprocess(SIZE, 3, (0.0,) * 3, (1.0,) * 3)
ALONE = 0.087
"""Largest distance of two distributions that are the same, but in one case of a thousand."""
TOGETHER = 0.12
"""Of whole recipes, in which it shows that crops are cut to whole pixels by torchvision alone."""
OF_FEW = 0.17
"""As ALONE, of 1000 figures and 150."""
CAUGHT = 0.13
NO_JITTER = dict.fromkeys(("brightness", "contrast", "saturation", "hue", "probability"), 0.0)
NOTHING = AugmentationSettings(
    crop_scale=(1.0, 1.0),
    flip_probability=0.0,
    jitter=NO_JITTER,
    grayscale_probability=0.0,
    blur_probability=0.0,
)


def changed(recipe, *, jitter=None, **changes):
    jitter = recipe.jitter.model_copy(update=jitter or {})
    return recipe.model_copy(update={**changes, "jitter": jitter})


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


def by_torchvision(recipe, image, count=VIEWS):
    views = TorchvisionViews((recipe,), RULE, seed=1)
    return torch.stack([views(IMAGES[image], number, 0)[0] for number in range(count)])


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


def rounded(figure):
    """In hundredths, since what was left alone is equal but for rounding."""
    return (100 * figure.double()).round().to(torch.int16).numpy()


def distance(figure, expected):
    return float(ks_2samp(rounded(figure), expected).statistic)


CASES = {
    "crop": (
        (changed(NOTHING, crop_scale=(0.2, 1.0), flip_probability=0.5), "ramps", of_crop),
        {
            "area": {"crop_scale": (0.08, 1.0)},
            "x": {"crop_scale": (0.6, 1.0)},
            "y": {"crop_scale": (0.6, 1.0)},
            "aspect": {"crop_scale": (0.9, 1.0)},
            "flip": {"flip_probability": 0.65},
        },
    ),
    "brightness": (
        (changed(NOTHING, jitter={"probability": 0.8, "brightness": 0.4}), "coloured", of_colour),
        {"brightness": {"jitter": {"brightness": 0.6}}},
    ),
    "contrast": (
        (changed(NOTHING, jitter={"probability": 0.8, "contrast": 0.4}), "coloured", of_colour),
        {"contrast": {"jitter": {"contrast": 0.6}}},
    ),
    "saturation": (
        (changed(NOTHING, jitter={"probability": 0.8, "saturation": 0.4}), "coloured", of_colour),
        {"saturation": {"jitter": {"saturation": 0.6}}},
    ),
    "hue": (
        (changed(NOTHING, jitter={"probability": 0.8, "hue": 0.1}), "coloured", of_hue),
        {"hue": {"jitter": {"hue": 0.2}}},
    ),
    "blur": (
        (changed(NOTHING, blur_probability=0.5), "coloured", of_colour),
        {"sharpness": {"blur_probability": 0.8}},
    ),
    "shares": (
        (
            changed(NOTHING, grayscale_probability=0.2, solarize_probability=0.2),
            "coloured",
            of_shares,
        ),
        {"grey": {"grayscale_probability": 0.4}, "solarized": {"solarize_probability": 0.4}},
    ),
    "MoCo v2": (
        (AugmentationSettings(), "coloured", of_colour),
        {
            "brightness": {"jitter": {"probability": 0.4}},
            "contrast": {"jitter": {"contrast": 1.0}},
            "saturation": {"grayscale_probability": 0.4},
            "sharpness": {"crop_scale": (0.8, 1.0)},
        },
    ),
    "BYOL's second view": (
        (
            AugmentationSettings(
                crop_scale=(0.08, 1.0),
                jitter={"saturation": 0.2},
                blur_probability=0.1,
                solarize_probability=0.2,
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


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as file:
        return dict(file)


def apart(reference, name, views, figures):
    """The distances of figures of views from those of torchvision's."""
    (_, image, measured), _ = CASES[name]
    found = measured(views, IMAGES[image])
    return {figure: distance(found[figure], reference[f"{name}/{figure}"]) for figure in figures}


@pytest.mark.parametrize("name", CASES)
def test_both_draw_from_the_same_distributions(reference, name):
    (recipe, image, _), wrong = CASES[name]
    found = apart(reference, name, in_batches(recipe, image), wrong)
    assert max(found.values()) < (ALONE if name[0].islower() else TOGETHER), found


@pytest.mark.parametrize("name", CASES)
def test_what_is_stored_is_of_torchvision(reference, name):
    (recipe, image, _), wrong = CASES[name]
    found = apart(reference, name, by_torchvision(recipe, image, FEW), wrong)
    assert max(found.values()) < OF_FEW, found


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_parameter_is_caught(reference, name):
    (recipe, image, _), wrong = CASES[name]
    for figure, change in wrong.items():
        views = in_batches(changed(recipe, **change), image)
        assert apart(reference, name, views, [figure])[figure] > CAUGHT, figure


@pytest.mark.parametrize(
    ("name", "value", "case", "figure"),
    [
        ("BLUR_SIGMA", (0.1, 0.6), "blur", "sharpness"),
        ("SOLARIZE_FROM", 250, "shares", "solarized"),
        ("_ASPECT", (math.log(1 / 2), math.log(2)), "crop", "aspect"),
        ("_RETRIES", 0, "crop", "area"),  # all of the image in place of another try
    ],
)
def test_a_wrong_constant_is_caught(reference, monkeypatch, name, value, case, figure):
    (recipe, image, _), _ = CASES[case]
    monkeypatch.setattr(batched_views, name, value)
    found = apart(reference, case, in_batches(recipe, image), [figure])[figure]
    assert found > (ALONE if name == "_RETRIES" else CAUGHT)


if __name__ == "__main__":
    np.savez_compressed(
        REFERENCE,
        **{
            f"{name}/{figure}": rounded(values)
            for name, ((recipe, image, measured), _) in CASES.items()
            for figure, values in measured(by_torchvision(recipe, image), IMAGES[image]).items()
        },
    )
