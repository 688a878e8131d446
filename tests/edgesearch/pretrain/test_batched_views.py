"""Views of whole batches: by hand, against torchvision's functions, and on any device."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms.v2 import functional as tv

from edgesearch.data.preprocess import Preprocess
from edgesearch.pretrain import batched_views
from edgesearch.pretrain.batched_views import (
    BatchedViews,
    blur,
    crop_and_flip,
    jitter,
    luma,
    to_device,
)
from edgesearch.pretrain.settings import AugmentationSettings, JitterSettings
from edgesearch.training.randomness import uniforms

MOCO = AugmentationSettings()
EVERYTHING = AugmentationSettings(solarize_probability=0.5)
NO_JITTER = dict.fromkeys(("brightness", "contrast", "saturation", "hue", "probability"), 0.0)
NOTHING = AugmentationSettings(
    crop_scale=(1.0, 1.0),
    flip_probability=0.0,
    jitter=NO_JITTER,
    grayscale_probability=0.0,
    blur_probability=0.0,
)
GPU = pytest.param("cuda", marks=pytest.mark.gpu)
QUARTER = AugmentationSettings(crop_scale=(0.25, 1.0), flip_probability=0.5)


def preprocess(channels=3, resolution=16, mean=0.5, std=0.25):
    return Preprocess(resolution, channels, (mean,) * channels, (std,) * channels)


def images_of(count=6, channels=3, height=16, width=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def floats_of(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def draws(*values, count=1):
    return torch.tensor([values] * count)


def views_of(augmentation, images, indices=None, *, seed=0, epoch=0, resolution=16):
    indices = torch.arange(len(images)) if indices is None else indices
    rule = preprocess(images.shape[1], resolution)
    return BatchedViews((augmentation, augmentation), rule, seed)(images, indices, epoch)


class TestCropAndFlip:
    """Draws are area, aspect (0.5 is square), y, x, flip (below one half)."""

    @pytest.mark.parametrize(
        ("y", "x", "top", "left"), [(0, 0, 0, 0), (1, 0, 4, 0), (0, 1, 0, 4), (0.5, 0.75, 2, 3)]
    )
    def test_a_quarter_is_cut_out_pixel_by_pixel(self, y, x, top, left):
        image = floats_of(1, 3, 8, 8)
        found = crop_and_flip(image, draws(0.0, 0.5, y, x, 0.9), QUARTER, 4)
        torch.testing.assert_close(found, image[:, :, top : top + 4, left : left + 4])

    def test_flip_mirrors_the_crop_exactly(self):
        image = floats_of(1, 3, 8, 8)
        for u in ((0.0, 0.5, 0.25, 0.75), (0.6, 0.3, 0.1, 0.9)):
            plain, mirrored = (
                crop_and_flip(image, draws(*u, flip), QUARTER, 4) for flip in (0.9, 0.1)
            )
            torch.testing.assert_close(mirrored, plain.flip(-1))
            assert not torch.allclose(mirrored, plain)

    def test_a_square_crop_of_an_oblong_image_is_square_in_pixels(self):
        image = floats_of(1, 3, 8, 16)
        half = AugmentationSettings(crop_scale=(0.5, 0.5))
        found = crop_and_flip(image, draws(0.0, 0.5, 0.0, 0.5, 0.9), half, 8)
        torch.testing.assert_close(found, image[:, :, :, 4:12])

    def test_a_crop_that_does_not_fit_is_drawn_again(self):
        image = floats_of(1, 3, 8, 8)
        place = (0.0, 0.0, 0.9)
        fits, too_long = (0.0, 0.5), (1.0, 0.0)  # 4 by 4 pixels; 9.2 by 6.9
        expected = crop_and_flip(image, draws(*fits, *place), QUARTER, 4)
        found = crop_and_flip(
            image, draws(*too_long, *place, *too_long, *fits, 0.9, 0.5), QUARTER, 4
        )
        assert torch.equal(found, expected)

    @pytest.mark.parametrize(
        ("height", "width", "rows", "columns"),
        [
            (8, 8, slice(0, 8), slice(0, 8)),
            (6, 12, slice(0, 6), slice(2, 10)),
            (12, 6, slice(2, 10), slice(0, 6)),
        ],
    )
    def test_where_no_crop_fits_the_middle_is_taken(self, height, width, rows, columns):
        image = floats_of(1, 3, height, width)
        whole = AugmentationSettings(crop_scale=(1.0, 1.0))
        found = crop_and_flip(image, draws(1.0, 1.0, 0.0, 0.0, 0.9, 1.0, 0.0), whole, 24)
        expected = crop_and_flip(
            image[:, :, rows, columns], draws(1.0, 1.0, 0.0, 0.0, 0.9), whole, 24
        )
        inner = slice(4, -4)  # the border of the part shows what lies beyond it
        torch.testing.assert_close(found[..., inner, inner], expected[..., inner, inner])


class TestColours:
    """Draws are brightness, contrast, saturation, hue; 0.5 leaves things as they are."""

    def test_middle_draws_change_nothing(self):
        images = floats_of(3, 3, 8, 8)
        found = jitter(images, draws(0.5, 0.5, 0.5, 0.5, count=3), JitterSettings())
        torch.testing.assert_close(found, images, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("draw", [0.0, 0.2, 0.9])
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize(
        ("column", "function"),
        [(0, tv.adjust_brightness), (1, tv.adjust_contrast), (2, tv.adjust_saturation)],
    )
    def test_equals_torchvision(self, column, function, channels, draw):
        images = floats_of(3, channels, 8, 8)
        u = torch.full((3, 4), 0.5)
        u[1, column] = draw
        found = jitter(images, u, JitterSettings(hue=0.0))
        expected = function(images[1], 1 + 0.4 * (2 * draw - 1))
        torch.testing.assert_close(found[1], expected, atol=2e-4, rtol=0)
        torch.testing.assert_close(found[[0, 2]], images[[0, 2]])

    def test_hue_turns_colours_and_leaves_greys(self):
        u = draws(0.5, 0.5, 0.5, 1.0)
        grey = floats_of(1, 1, 8, 8).expand(-1, 3, -1, -1)
        torch.testing.assert_close(jitter(grey, u, JitterSettings()), grey, atol=1e-3, rtol=0)
        pale = 0.4 + 0.2 * floats_of(1, 3, 8, 8)  # far from the ends of the range
        turned = jitter(pale, u, JitterSettings())
        assert (turned - pale).abs().max() > 0.01
        torch.testing.assert_close(luma(turned), luma(pale), atol=1e-3, rtol=0)

    def test_hue_turns_in_the_direction_of_torchvision(self):
        red = torch.tensor([0.6, 0.4, 0.4]).view(1, 3, 1, 1)
        for draw in (0.0, 1.0):
            found = jitter(red, draws(0.5, 0.5, 0.5, draw), JitterSettings())
            expected = tv.adjust_hue(red, 0.1 * (2 * draw - 1))
            assert torch.equal((found - found.mean()).sign(), (expected - expected.mean()).sign())
            assert int(found.flatten().argmin()) == int(expected.flatten().argmin())

    def test_half_a_turn_of_the_hue_gives_the_opposite_colour(self):
        pale = 0.45 + 0.1 * floats_of(1, 3, 8, 8)
        found = jitter(pale, draws(0.5, 0.5, 0.5, 1.0), JitterSettings(hue=0.5))
        torch.testing.assert_close(found, 2 * luma(pale) - pale, atol=1e-3, rtol=0)

    def test_strengths_above_one_never_turn_an_image_into_its_negative(self):
        images = floats_of(1, 3, 8, 8)
        strong = JitterSettings(contrast=3.0, brightness=0.0, saturation=0.0, hue=0.0)
        found = jitter(images, draws(0.5, 0.0, 0.5, 0.5), strong)
        expected = tv.adjust_contrast(images[0], 0.0)[None]
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)

    def test_luma(self):
        images = floats_of(2, 3, 4, 4)
        torch.testing.assert_close(luma(images), tv.rgb_to_grayscale(images), atol=2e-4, rtol=0)
        assert torch.equal(luma(images[:, :1]), images[:, :1])


class TestBlur:
    @pytest.mark.parametrize(("channels", "kernel_size"), [(1, 3), (3, 3), (3, 5)])
    def test_equals_torchvision(self, channels, kernel_size):
        images = floats_of(3, channels, 9, 11)
        sigmas = [0.1, 0.7, 2.0]
        found = blur(images, torch.tensor(sigmas), kernel_size)
        for image, sigma, result in zip(images, sigmas, found, strict=True):
            expected = tv.gaussian_blur(image, [kernel_size] * 2, [sigma] * 2)
            torch.testing.assert_close(result, expected)

    def test_of_no_images(self):
        assert blur(torch.zeros(0, 3, 8, 8), torch.zeros(0), 3).shape == (0, 3, 8, 8)


class TestViews:
    def test_without_colour_changes_a_view_is_the_normalised_crop(self):
        image = torch.full((1, 3, 8, 8), 51, dtype=torch.uint8)
        for view in views_of(NOTHING, image):
            torch.testing.assert_close(view, torch.full((1, 3, 16, 16), (0.2 - 0.5) / 0.25))

    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_a_few_pixels_are_blurred_as_far_as_they_can_be(self, size):
        always = AugmentationSettings(blur_probability=1.0)
        for view in views_of(always, images_of(4, height=5, width=5), resolution=size):
            assert view.shape == (4, 3, size, size) and view.isfinite().all()

    def test_depend_on_seed_epoch_and_image_alone(self):
        images = images_of(6)
        whole = views_of(MOCO, images)
        chosen = torch.tensor([4, 1])
        part = views_of(MOCO, images[chosen], chosen)
        for one, other in zip(whole, part, strict=True):
            torch.testing.assert_close(one[chosen], other, rtol=0, atol=1e-5)
        again = views_of(MOCO, images)
        assert all(map(torch.equal, whole, again))

    def test_differ_from_each_other_and_by_seed_epoch_and_image(self):
        images = images_of(1).expand(2, -1, -1, -1)
        first, second = views_of(MOCO, images)
        other_seed = views_of(MOCO, images, seed=1)[0]
        other_epoch = views_of(MOCO, images, epoch=1)[0]
        for other in (second, other_seed, other_epoch, first.flip(0)):
            assert all(
                not torch.allclose(a, b, atol=1e-3) for a, b in zip(first, other, strict=True)
            )

    def test_each_view_has_a_recipe_of_its_own(self):
        images, indices = images_of(6), torch.arange(6)
        weak = AugmentationSettings(
            jitter={"probability": 0.0}, grayscale_probability=0.0, blur_probability=0.0
        )
        strong_view, weak_view = BatchedViews((MOCO, weak), preprocess(), 0)(images, indices, 0)
        assert torch.equal(strong_view, views_of(MOCO, images)[0])
        draws = torch.from_numpy(uniforms(32, 0, 0, indices.numpy(), 1)).float()
        draws = torch.cat([draws[:, :5], draws[:, 14:]], dim=1)
        cropped = crop_and_flip(images.float() / 255, draws, weak, 16)
        torch.testing.assert_close(weak_view, (cropped - 0.5) / 0.25)

    def test_solarizing_equals_torchvision(self):
        solarized = NOTHING.model_copy(update={"solarize_probability": 1.0})
        plain, found = (views_of(a, images_of(6))[0] * 0.25 + 0.5 for a in (NOTHING, solarized))
        torch.testing.assert_close(found, tv.solarize(plain, 128 / 255))

    def test_leave_images_and_random_state_alone(self):
        images = images_of(4)
        before, state = images.clone(), torch.get_rng_state()
        views_of(MOCO, images)
        assert torch.equal(images, before)
        assert torch.equal(torch.get_rng_state(), state)


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
    recipe = EVERYTHING.model_copy(update={"blur_probability": 0.0})
    indices = SimpleNamespace(numpy=lambda: np.arange(8))  # a tensor would have no values here
    for view in BatchedViews((recipe,) * 2, preprocess(channels), 0)(images, indices, 0):
        assert view.device == pretended_gpu
        assert view.shape == (8, channels, 16, 16)


def test_no_part_of_a_blur_is_left_on_the_cpu(pretended_gpu):
    images = torch.zeros(8, 3, 16, 16, device=pretended_gpu)
    assert blur(images, torch.ones(8, device=pretended_gpu), 3).device == pretended_gpu


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_every_device_makes_the_same_views(device):
    images, indices = images_of(200), torch.arange(200)
    views = BatchedViews((EVERYTHING,) * 2, preprocess(), 0)
    expected = views(images, indices, 3)
    found = views(images.to(device), indices, 3)
    for one, other in zip(found, expected, strict=True):
        assert one.device.type == device
        # A pixel at the edge of being solarized may fall on either side.
        apart = (one.cpu() - other).abs() > 5e-3
        assert float(apart.float().mean()) < 1e-3
    assert all(map(torch.equal, views(images.to(device), indices, 3), found))


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_what_is_on_the_device_stays(device):
    tensor = torch.ones(3, device=device)
    assert to_device(tensor, torch.device(device)).data_ptr() == tensor.data_ptr()


FIELDS = [*AugmentationSettings.model_fields, *JitterSettings.model_fields]


@pytest.mark.parametrize("field", [f for f in FIELDS if f not in ("batched", "jitter")])
def test_every_option_counts(field):
    value = (0.5, 0.6) if field == "crop_scale" else 0.05
    always = EVERYTHING.jitter.model_copy(update={"probability": 1.0})
    base = other = EVERYTHING.model_copy(update={"jitter": always})
    if field in AugmentationSettings.model_fields:
        other = base.model_copy(update={field: value})
    else:
        other = base.model_copy(update={"jitter": always.model_copy(update={field: value})})
    one, two = (views_of(each, images_of(200))[0] for each in (base, other))
    changed = (one - two).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert changed.float().mean() > 0.1
