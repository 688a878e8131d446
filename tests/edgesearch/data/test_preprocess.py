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
    short_side = round(32 * ratio)
    reference = v2.Compose([v2.Resize(short_side, mode, antialias=True), v2.CenterCrop(32)])
    result = make(resize_ratio=ratio, interpolation=interpolation)(image)
    assert result.dtype == torch.uint8
    assert result.shape == (3, 32, 32)
    # torchvision's kernels for uint8 round and clip between the two axes: compare in float.
    assert torch.equal(result.float(), reference(image.float()).round().clamp(0, 255))


def test_image_of_the_right_size_stays_as_it_is():
    image = random_image(3, 32, 32)
    assert torch.equal(make()(image), image)


@pytest.mark.parametrize("shape", [(1, 1, 50_000), (1, 50_000, 1), (1, 1, 1)])
def test_extreme_shapes_do_not_explode(shape):
    assert make(224, 1)(torch.full(shape, 7, dtype=torch.uint8)).unique().tolist() == [7]


def test_trimming_of_long_images_does_not_reach_the_crop():
    image = random_image(3, 20, 200)
    trimmed = image[:, :, 40:160]
    rule = make(10)
    assert (rule(image).int() - rule(trimmed).int()).abs().max() <= 1


def test_normalise():
    rule = Preprocess(2, 3, (0.0, 0.5, 1.0), (1.0, 0.5, 0.25))
    images = torch.tensor([0, 255, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    normalised = rule.normalise(images)
    assert normalised.dtype == torch.float32
    assert normalised[1, :, 1, 1].tolist() == [0.0, 1.0, 0.0]


def test_with_resolution_keeps_the_rest():
    assert make(resize_ratio=1.2).with_resolution(48) == make(48, resize_ratio=1.2)


def test_dict_round_trip_through_json():
    rule = make(24, 1, resize_ratio=1.14, interpolation="bicubic")
    assert Preprocess.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule


@pytest.mark.parametrize("change", [{"crop": 1}, {"mean": None}])
def test_foreign_dict_is_refused(change):
    values = {**make().to_dict(), **change}
    values = {name: value for name, value in values.items() if value is not None}
    with pytest.raises(DataError, match="has the fields resolution, channels, mean.*found"):
        Preprocess.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 0}, "resolution 0"),
        ({"channels": 2}, r"channels 2 \(1 or 3\)"),
        ({"mean": (0.5,)}, "1 values of mean"),
        ({"std": (0.5, 0.5)}, "2 values of std"),
        ({"std": (0.5, 0.0, 0.5)}, r"std \[0.5, 0.0, 0.5\] \(greater than 0\)"),
        ({"resize_ratio": 0.9}, r"resize_ratio 0.9 \(1 or more\)"),
        ({"interpolation": "nearest"}, "'nearest' .bilinear or bicubic"),
    ],
)
def test_faults_are_named(change, message):
    values = {"resolution": 32, "channels": 3, "mean": (0.5,) * 3, "std": (0.2,) * 3, **change}
    with pytest.raises(DataError, match=message):
        Preprocess(**values)


def test_all_faults_are_named_at_once():
    with pytest.raises(DataError, match=r"resolution 0.*; .*resize_ratio 0"):
        make(0, resize_ratio=0)
