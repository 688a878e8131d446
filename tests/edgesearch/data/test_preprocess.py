"""The resize rule, against torchvision's and by hand."""

import json

import pytest
import torch
from torchvision.transforms import v2

from edgesearch.data.preprocess import Preprocess
from edgesearch.errors import DataError


def make(resolution=32, channels=3, **options):
    return Preprocess(resolution, channels, (0.5,) * channels, (0.25,) * channels, **options)


def random_image(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(3, 100, 61), (3, 45, 160), (3, 8, 9), (3, 32, 32), (3, 33, 99)])
@pytest.mark.parametrize("ratio", [1.0, 1.14])
def test_equals_torchvision(shape, ratio, interpolation):
    image = random_image(*shape)
    mode = v2.InterpolationMode(interpolation)
    resize = v2.Resize(round(32 * ratio), mode, antialias=True)
    # torchvision's kernels for uint8 round and clip between the two axes: compare in float.
    expected = v2.CenterCrop(32)(resize(image.float())).round().clamp(0, 255)
    result = make(resize_ratio=ratio, interpolation=interpolation)(image)
    assert result.dtype == torch.uint8
    assert torch.equal(result.float(), expected)
    if shape[1:] == (32, 32) and ratio == 1:
        assert torch.equal(result, image)


@pytest.mark.parametrize("shape", [(1, 1, 50_000), (1, 50_000, 1), (1, 1, 1)])
def test_extreme_shapes_do_not_explode(shape):
    assert make(224, 1)(torch.full(shape, 7, dtype=torch.uint8)).unique().tolist() == [7]


def test_trimming_of_long_images_does_not_reach_the_crop():
    image = random_image(3, 20, 200)
    difference = make(10)(image).int() - make(10)(image[:, :, 40:160]).int()
    assert difference.abs().max() <= 1


def test_normalise():
    rule = Preprocess(2, 3, (0.0, 0.5, 1.0), (1.0, 0.5, 0.25))
    images = torch.tensor([0, 255, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    normalised = rule.normalise(images)
    assert normalised.dtype == torch.float32
    assert normalised[1, :, 1, 1].tolist() == [0.0, 1.0, 0.0]


def test_stored_as_json_it_is_the_same_rule():
    rule = make(24, 1, resize_ratio=1.14, interpolation="bicubic")
    again = Preprocess(**json.loads(json.dumps(rule.to_dict())))
    image = random_image(1, 50, 40)
    assert torch.equal(again.normalise(again(image)[None]), rule.normalise(rule(image)[None]))


@pytest.mark.parametrize("name", ["mean", "std"])
def test_values_for_other_channels_are_refused(name):
    values = {"mean": (0.5,), "std": (0.2,), name: (0.5,) * 3}
    with pytest.raises(DataError, match=rf"data.{name} of one value for each .*found: 3 values"):
        Preprocess(32, 1, **values)
