"""Random views of each image, by torchvision's transforms, one image at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torchvision.transforms import v2

from edgesearch.data.preprocess import Preprocess
from edgesearch.pretrain.randomness import seed_of


@dataclass(frozen=True)
class Augmentation:
    """How a view differs from its image. The defaults are those of MoCo v2.

    Source: Chen et al., "Improved baselines with momentum contrastive learning" (2020), and the
    parameters of its released code.

    Attributes:
        crop_scale: Smallest and largest share of the image's area that is cut out.
        flip_probability: Of a horizontal flip.
        jitter_probability: Of changed brightness, contrast, saturation and hue.
        brightness: Largest relative change; contrast and saturation alike.
        contrast: See brightness.
        saturation: See brightness.
        hue: Largest turn of the hue circle, at most 0.5.
        grayscale_probability: Of taking the colours away.
        blur_probability: Of Gaussian blur (standard deviation 0.1 to 2 pixels).
        solarize_probability: Of turning the upper half of the range of brightness upside down
            (BYOL, appendix B).
    """

    crop_scale: tuple[float, float] = (0.2, 1.0)
    flip_probability: float = 0.5
    jitter_probability: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grayscale_probability: float = 0.2
    blur_probability: float = 0.5
    solarize_probability: float = 0.0


BLUR_SIGMA = (0.1, 2.0)
SOLARIZE_FROM = 128
"""Brightness, of 256, from which on solarizing turns it upside down."""


def blur_kernel_size(resolution: int) -> int:
    """Odd, about a tenth of the image."""
    return max(3, resolution // 10 // 2 * 2 + 1)


class TorchvisionViews:
    """Views of single images; the randomness of each is seeded by seed, epoch, image and view.

    Args:
        recipes: How each view is made.
        preprocess: Resolution and normalisation.
        seed: Of all draws.
    """

    def __init__(self, recipes: Sequence[Augmentation], preprocess: Preprocess, seed: int) -> None:
        self.seed = seed
        self.transforms = [_transform(recipe, preprocess) for recipe in recipes]

    def __call__(self, image: torch.Tensor, index: int, epoch: int) -> tuple[torch.Tensor, ...]:
        """One view for each recipe.

        Args:
            image: (C, H, W) uint8.
            index: Number of the image in its set.
            epoch: Number of the epoch.

        Returns:
            Tensors (C, R, R) float32, normalised.
        """
        views = []
        with torch.random.fork_rng(devices=[]):
            for number, transform in enumerate(self.transforms):
                torch.manual_seed(seed_of(self.seed, epoch, index, number))
                views.append(transform(image))
        return tuple(views)


def _transform(a: Augmentation, preprocess: Preprocess) -> v2.Compose:
    resolution = preprocess.resolution
    jitter = v2.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue)
    gaussian = v2.GaussianBlur(blur_kernel_size(resolution), BLUR_SIGMA)
    return v2.Compose(
        [
            v2.RandomResizedCrop(resolution, a.crop_scale, antialias=True),
            v2.RandomHorizontalFlip(a.flip_probability),
            v2.RandomApply([jitter], a.jitter_probability),
            v2.RandomGrayscale(a.grayscale_probability),
            v2.RandomApply([gaussian], a.blur_probability),
            v2.RandomSolarize(SOLARIZE_FROM, a.solarize_probability),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(preprocess.mean), list(preprocess.std)),
        ]
    )


def two_views(pairs: Sequence[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack pairs of views to two batches (N, C, R, R)."""
    first, second = zip(*pairs, strict=True)
    return torch.stack(first), torch.stack(second)
