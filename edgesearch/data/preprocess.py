"""Preprocessing of decoded images to network inputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from edgesearch.errors import DataError

LONGEST_ASPECT = 4


@dataclass(frozen=True)
class Preprocess:
    """Resize to a square and normalisation; stored with every exported network.

    By `fit`, with antialiasing:

    - crop: The short side is resized to round(resolution · resize_ratio) pixels, the long side in
      proportion (rounded down), and the central square of `resolution` pixels is cropped, as
      torchvision's `Resize` and `CenterCrop` do.
    - stretch: Both sides are resized to `resolution`; the ratio changes, nothing is lost.
    - letterbox: The long side is resized to `resolution`, the short side in proportion, and black
      borders below or on the right make a square.

    Attributes:
        resolution: Output height and width, in pixels.
        channels: Channels of input and output, 1 or 3.
        mean: Mean of each channel, for pixel values in 0 … 1.
        std: Standard deviation of each channel, for pixel values in 0 … 1.
        resize_ratio: Resized short side as a multiple of `resolution`.
        interpolation: "bilinear" or "bicubic".
        fit: "crop", "stretch" or "letterbox".

    Raises:
        DataError: The number of values of mean or std differs from the number of channels.
    """

    resolution: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_ratio: float = 1.0
    interpolation: str = "bilinear"
    fit: str = "crop"

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise DataError(
                    f"data.{name} of one value for each channel of the images, {self.channels}",
                    f"{len(values)} values",
                    f"Correct data.{name}, or leave out data.mean and data.std.",
                )

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Resize and crop or fill (C, H, W) uint8 to (C, resolution, resolution) uint8."""
        if self.fit != "crop":
            image = self._resize(image, self.size_within(*image.shape[1:]))
            right, below = (self.resolution - image.shape[axis] for axis in (2, 1))
            return F.pad(image, (0, right, 0, below))
        image = _trim(image)
        height, width = image.shape[1:]
        target = round(self.resolution * self.resize_ratio)
        short = min(height, width)
        if short != target:
            size = (target * height // short, target * width // short)
            image = self._resize(image, size)
        return _centre(image, self.resolution, self.resolution)

    def size_within(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after `stretch` or `letterbox`, without borders."""
        if self.fit == "stretch":
            return self.resolution, self.resolution
        long = max(height, width)
        return tuple(max(1, round(self.resolution * side / long)) for side in (height, width))  # type: ignore[return-value]

    def _resize(self, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        # float32, because uint8 kernels round differently from machine to machine.
        resized = F.interpolate(image[None].float(), size, mode=self.interpolation, antialias=True)
        return resized[0].round().clamp(0, 255).to(torch.uint8)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """(x / 255 - mean) / std: (N, C, H, W) uint8 to float32 on the same device."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return (images.float() / 255 - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain types; `Preprocess(**values)` restores them."""
        return asdict(self)


def _trim(image: torch.Tensor) -> torch.Tensor:
    """Limit the aspect ratio: a strip of one pixel's width would be resized to gigabytes."""
    height, width = image.shape[1:]
    longest = LONGEST_ASPECT * min(height, width)
    return _centre(image, min(height, longest), min(width, longest))


def _centre(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Central crop (C, height, width)."""
    top = round((image.shape[1] - height) / 2)
    left = round((image.shape[2] - width) / 2)
    return image[:, top : top + height, left : left + width]
