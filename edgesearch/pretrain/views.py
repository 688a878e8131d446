"""Augmentation image by image with torchvision's transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torchvision.transforms import v2

from edgesearch.data.preprocess import Preprocess
from edgesearch.training.randomness import seed_of, seeded

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import AugmentationSettings


BLUR_SIGMA = (0.1, 2.0)
"""Range of the standard deviation of the Gaussian blur, in pixels."""
SOLARIZE_FROM = 128
"""Pixel values from this threshold on (of 256) are inverted by solarization."""


def blur_kernel_size(resolution: int) -> int:
    """An odd size of about a tenth of the image, at least 3; 1 for a single pixel."""
    return max(3, resolution // 10 // 2 * 2 + 1) if resolution > 1 else 1


class TorchvisionViews:
    """Views of single images; seed, epoch, image and view seed the randomness of each."""

    def __init__(
        self, augmentations: Sequence[AugmentationSettings], preprocess: Preprocess, seed: int
    ) -> None:
        self.seed = seed
        self.transforms = [_transform(augmentation, preprocess) for augmentation in augmentations]

    def __call__(self, image: torch.Tensor, index: int, epoch: int) -> tuple[torch.Tensor, ...]:
        """A view (C, R, R) float32, normalised, of (C, H, W) uint8 per augmentation."""
        return self.changed([image] * len(self.transforms), index, epoch)

    def changed(self, images: Sequence[Any], index: int, epoch: int) -> tuple[Any, ...]:
        """The views, each by its transform from its own (C, H, W) uint8 of an image.

        A tuple of an image and what else a transform takes gives a tuple.
        """
        views = []
        for number, (transform, image) in enumerate(zip(self.transforms, images, strict=True)):
            with seeded(seed_of(self.seed, epoch, index, number)):
                views.append(transform(image))
        return tuple(views)


def _transform(a: AugmentationSettings, preprocess: Preprocess) -> v2.Compose:
    crop = v2.RandomResizedCrop(preprocess.resolution, a.crop_scale, antialias=True)
    return v2.Compose([crop, *after_crop(a, preprocess)])


def after_crop(a: AugmentationSettings, preprocess: Preprocess) -> list[v2.Transform]:
    """Flip, changes of colour and normalisation."""
    jitter = v2.ColorJitter(
        a.jitter.brightness, a.jitter.contrast, a.jitter.saturation, a.jitter.hue
    )
    gaussian = v2.GaussianBlur(blur_kernel_size(preprocess.resolution), BLUR_SIGMA)
    return [
        v2.RandomHorizontalFlip(a.flip_probability),
        v2.RandomApply([jitter], a.jitter.probability),
        v2.RandomGrayscale(a.grayscale_probability),
        v2.RandomApply([gaussian], a.blur_probability),
        v2.RandomSolarize(SOLARIZE_FROM, a.solarize_probability),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(preprocess.mean), list(preprocess.std)),
    ]
