"""Views of single images by torchvision's transforms."""

import pytest
import torch
from torchvision.transforms import v2

from edgesearch.data.preprocess import Preprocess
from edgesearch.pretrain.settings import AugmentationSettings
from edgesearch.pretrain.views import TorchvisionViews, blur_kernel_size
from edgesearch.training.randomness import seed_of


def make_views(channels=3, resolution=32, seed=0, **options):
    rule = Preprocess(resolution, channels, (0.4,) * channels, (0.2,) * channels)
    return TorchvisionViews((AugmentationSettings(**options),) * 2, rule, seed)


def random_image(channels=3, height=40, width=50):
    generator = torch.Generator().manual_seed(0)
    shape = (channels, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_equal_the_recipe_of_moco_v2():
    """Written out from the paper: crop 0.2–1, flip, colour 0.4/0.4/0.4/0.1, grey, blur."""
    recipe = v2.Compose(
        [
            v2.RandomResizedCrop(32, (0.2, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(3, (0.1, 2.0))], p=0.5),
        ]
    )
    image = random_image()
    for index in range(8):
        for number, view in enumerate(make_views()(image, index, epoch=2)):
            torch.manual_seed(seed_of(0, 2, index, number))
            expected = (recipe(image).float() / 255 - 0.4) / 0.2
            torch.testing.assert_close(view, expected, atol=1e-5, rtol=1e-5)


def test_each_view_has_a_recipe_of_its_own():
    """A strong view and a weak one; the weak one is cropped and mirrored, no more."""
    weak = AugmentationSettings(
        jitter={"probability": 0.0}, grayscale_probability=0.0, blur_probability=0.0
    )
    rule = Preprocess(32, 3, (0.4,) * 3, (0.2,) * 3)
    views = TorchvisionViews((AugmentationSettings(), weak), rule, 0)
    crop = v2.Compose([v2.RandomResizedCrop(32, (0.2, 1.0)), v2.RandomHorizontalFlip()])
    image = random_image()
    for index in range(4):
        strong, found = views(image, index, epoch=2)
        assert torch.equal(strong, make_views()(image, index, epoch=2)[0])
        torch.manual_seed(seed_of(0, 2, index, 1))
        torch.testing.assert_close(found, (crop(image).float() / 255 - 0.4) / 0.2)


def test_solarizing_turns_what_is_bright_upside_down():
    plain, solarized = (
        make_views(crop_scale=(1.0, 1.0), solarize_probability=share)(random_image(), 3, 0)[0]
        for share in (0.0, 1.0)
    )
    pixels, found = ((255 * (view * 0.2 + 0.4)).round() for view in (plain, solarized))
    torch.testing.assert_close(found, torch.where(pixels >= 128, 255 - pixels, pixels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (100, 31)])
def test_shape(channels, size):
    for view in make_views(channels)(random_image(channels, *size), 0, 0):
        assert view.shape == (channels, 32, 32)
        assert view.dtype == torch.float32


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_few_pixels_are_blurred_as_far_as_they_can_be(size):
    views = make_views(3, size, blur_probability=1.0)(random_image(3, 5, 5), 0, 0)
    assert all(view.shape == (3, size, size) and view.isfinite().all() for view in views)


def test_depend_on_seed_epoch_and_image_alone():
    image, views = random_image(), make_views()
    first, second = views(image, 5, 1)
    views(image, 6, 1)
    torch.rand(3)
    assert all(map(torch.equal, (first, second), make_views()(image, 5, 1)))
    others = [
        second,
        views(image, 6, 1)[0],
        views(image, 5, 2)[0],
        make_views(seed=1)(image, 5, 1)[0],
    ]
    assert not any(torch.allclose(first, other, atol=1e-3) for other in others)


def test_leave_image_and_random_state_alone():
    image = random_image()
    before, state = image.clone(), torch.get_rng_state()
    make_views()(image, 0, 0)
    assert torch.equal(image, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("resolution", "expected"), [(1, 1), (2, 3), (8, 3), (32, 3), (96, 9), (224, 23)]
)
def test_blur_kernel_is_odd_and_a_tenth_of_the_image(resolution, expected):
    assert blur_kernel_size(resolution) == expected
