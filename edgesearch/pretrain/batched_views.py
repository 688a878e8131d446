"""Augmentation of whole batches of small images, each image with its own draws.

torchvision's transforms draw once per batch; applied image by image they cost more than training a
small network. Differences: crops end between pixels, the order of colour changes is fixed, hue
rotates in YIQ instead of HSV, and resizing is not antialiased. All draws have the same
distributions (`test_view_statistics.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from edgesearch.data.preprocess import Preprocess
from edgesearch.pretrain.views import BLUR_SIGMA, SOLARIZE_FROM, blur_kernel_size
from edgesearch.training.randomness import uniforms

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import AugmentationSettings, JitterSettings

_LUMA = (0.299, 0.587, 0.114)
_RGB_TO_YIQ = torch.tensor(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)
_YIQ_TO_RGB = torch.linalg.inv(_RGB_TO_YIQ)
DRAWS = 14
"""Uniform numbers of a view, without further tries of its crop."""
_RETRIES = 9
"""Further tries of a crop that exceeds its image; torchvision makes ten in total."""
_ASPECT = (math.log(3 / 4), math.log(4 / 3))


class BatchedViews:
    """Views of batches; the draws of each image are keyed by seed, epoch, image and view.

    All draws happen on the CPU, so every device makes the same views up to rounding.
    """

    def __init__(
        self, augmentations: Sequence[AugmentationSettings], preprocess: Preprocess, seed: int
    ) -> None:
        self.augmentations = augmentations
        self.preprocess = preprocess
        self.seed = seed

    def __call__(
        self, images: torch.Tensor, indices: torch.Tensor, epoch: int
    ) -> tuple[torch.Tensor, ...]:
        """Two views (N, C, R, R) float32, normalised, of each image (N, C, H, W) uint8.

        `indices` (N,) are those of the images in their set, on the CPU.
        """
        return self.views_from(0, images, indices, epoch)

    def views_from(
        self, first: int, images: torch.Tensor, indices: torch.Tensor, epoch: int
    ) -> tuple[torch.Tensor, ...]:
        """The views from number `first` on; see `__call__`."""
        return tuple(
            self._view(
                images,
                augmentation,
                uniforms(DRAWS + 2 * _RETRIES, self.seed, epoch, indices.numpy(), first + number),
            )
            for number, augmentation in enumerate(self.augmentations[first:])
        )

    def _view(
        self, images: torch.Tensor, a: AugmentationSettings, draws: np.ndarray
    ) -> torch.Tensor:
        on_cpu = torch.from_numpy(draws).to(torch.float32)
        u = to_device(on_cpu, images.device)
        of_crop = torch.cat([u[:, :5], u[:, DRAWS:]], dim=1)
        x = crop_and_flip(images.to(torch.float32) / 255, of_crop, a, self.preprocess.resolution)
        return self.changed(x, a, on_cpu)

    def changed(
        self, x: torch.Tensor, a: AugmentationSettings, on_cpu: torch.Tensor
    ) -> torch.Tensor:
        """Change the colours of crops (N, C, R, R) in 0 … 1, and normalise them.

        `on_cpu` are uniform draws (N, at least 14), of which columns 5 to 13 are used.
        """
        u = to_device(on_cpu, x.device)
        if a.jitter.probability > 0:
            chosen = (u[:, 9] < a.jitter.probability)[:, None, None, None]
            x = torch.where(chosen, jitter(x, u[:, 5:9], a.jitter), x)
        if x.shape[1] == 3 and a.grayscale_probability > 0:
            chosen = (u[:, 10] < a.grayscale_probability)[:, None, None, None]
            x = torch.where(chosen, luma(x), x)
        if a.blur_probability > 0:
            # Chosen on the CPU: counting them on a GPU would block.
            places = torch.nonzero(on_cpu[:, 11] < a.blur_probability).flatten()
            chosen = to_device(places, x.device)
            low, high = BLUR_SIGMA
            sigma = low + (high - low) * u[chosen, 12]
            x[chosen] = blur(x[chosen], sigma, blur_kernel_size(self.preprocess.resolution))
        if a.solarize_probability > 0:
            chosen = (u[:, 13] < a.solarize_probability)[:, None, None, None]
            x = torch.where(chosen & (x >= SOLARIZE_FROM / 255), 1 - x, x)
        mean, std = (
            to_device(torch.tensor(v).view(1, -1, 1, 1), x.device)
            for v in (self.preprocess.mean, self.preprocess.std)
        )
        return (x - mean) / std


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to a device, asynchronously to a GPU."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def crop_and_flip(
    images: torch.Tensor, u: torch.Tensor, augmentation: AugmentationSettings, resolution: int
) -> torch.Tensor:
    """Random resized crop with optional flip, bilinear, not antialiased, to (N, C, R, R).

    Args:
        images: (N, C, H, W) float32.
        u: (N, 5 + 2T) uniform draws: area, aspect ratio, position (y, x), flip; then area and
            aspect ratio of T further tries. The first try that fits into the image counts; if
            none does, the centre of the image is used, as in torchvision.
        augmentation: Only crop_scale and flip_probability are used.
        resolution: R.
    """
    low, high = augmentation.crop_scale
    area = low + (high - low) * torch.cat([u[:, :1], u[:, 5::2]], dim=1)
    turn = torch.cat([u[:, 1:2], u[:, 6::2]], dim=1)
    aspect = torch.exp(_ASPECT[0] + (_ASPECT[1] - _ASPECT[0]) * turn)
    sides = images.shape[3] / images.shape[2]
    aspect = aspect / sides  # in shares of the sides
    heights, widths = (area / aspect).sqrt(), (area * aspect).sqrt()
    fits = (heights <= 1) & (widths <= 1)
    none, first = ~fits.any(dim=1), fits.int().argmax(dim=1, keepdim=True)
    # torchvision's fallback: the largest centre crop with an aspect ratio in the range.
    height = heights.gather(1, first)[:, 0].masked_fill(
        none, min(1.0, sides / math.exp(_ASPECT[0]))
    )
    width = widths.gather(1, first)[:, 0].masked_fill(none, min(1.0, math.exp(_ASPECT[1]) / sides))
    y, x = (u[:, column].masked_fill(none, 0.5) for column in (2, 3))
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    flip = torch.where(u[:, 4] < augmentation.flip_probability, -1.0, 1.0)
    theta[:, 0, 0] = width * flip
    theta[:, 0, 2] = (1 - width) * (2 * x - 1)
    theta[:, 1, 1] = height
    theta[:, 1, 2] = (1 - height) * (2 * y - 1)
    shape = [len(images), images.shape[1], resolution, resolution]
    grid = F.affine_grid(theta, shape, align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def luma(images: torch.Tensor) -> torch.Tensor:
    """Luma (N, 1, H, W) of (N, 3, H, W); a single channel is returned unchanged."""
    if images.shape[1] == 1:
        return images
    weights = to_device(torch.tensor(_LUMA).view(1, 3, 1, 1), images.device)
    return (images * weights).sum(dim=1, keepdim=True)


def jitter(images: torch.Tensor, u: torch.Tensor, strengths: JitterSettings) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue of each image.

    Images are (N, C, H, W) in 0 … 1; `u` are uniform draws (N, 4).
    """

    def factor(column: int, size: float) -> torch.Tensor:
        low = max(0.0, 1 - size)
        return (low + (1 + size - low) * u[:, column]).view(-1, 1, 1, 1)

    x = (images * factor(0, strengths.brightness)).clamp(0, 1)
    mean = luma(x).mean(dim=(1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * factor(1, strengths.contrast)).clamp(0, 1)
    if x.shape[1] == 1:
        return x
    grey = luma(x)
    x = (grey + (x - grey) * factor(2, strengths.saturation)).clamp(0, 1)
    if strengths.hue == 0:
        return x
    # Hue decreases with the angle in the plane of I and Q.
    turn = -2 * math.pi * strengths.hue * (2 * u[:, 3] - 1)
    rotation = torch.zeros(len(x), 3, 3, device=x.device)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = turn.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -turn.sin(), turn.sin()
    back, there = to_device(_YIQ_TO_RGB, x.device), to_device(_RGB_TO_YIQ, x.device)
    matrix = back @ rotation @ there
    return torch.einsum("nij,njhw->nihw", matrix, x).clamp(0, 1)


def blur(images: torch.Tensor, sigma: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """Gaussian blur of (N, C, H, W) with standard deviations (N,) in pixels; odd kernel size."""
    n, channels, height, width = images.shape
    if n == 0:
        return images
    half = kernel_size // 2
    offsets = torch.arange(-half, half + 1, dtype=torch.float32, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    x = images.reshape(1, n * channels, height, width)
    x = F.pad(x, (half, half, half, half), mode="reflect")
    x = F.conv2d(x, kernel[:, None, :, None], groups=n * channels)
    x = F.conv2d(x, kernel[:, None, None, :], groups=n * channels)
    return x.reshape(n, channels, height, width)
