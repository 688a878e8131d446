"""The rule that turns a decoded image into the input of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F

from edgesearch.errors import DataError

INTERPOLATIONS = ("bilinear", "bicubic")
LONGEST_ASPECT = 4
"""Longer images are trimmed to this aspect first; what is cut off lies far outside the crop."""


@dataclass(frozen=True)
class Preprocess:
    """Resize, centre crop and normalisation; stored with every exported network.

    The short side is resized to round(resolution · resize_ratio) pixels with antialiasing, the
    long side in proportion (rounded down), and the central square of `resolution` pixels is
    kept: the rule of torchvision's `Resize` followed by `CenterCrop`.

    Attributes:
        resolution: Height and width of the result, in pixels.
        channels: Channels of images and result, 1 or 3.
        mean: Mean of each channel, of pixel values in 0 … 1.
        std: Standard deviation of each channel, of pixel values in 0 … 1.
        resize_ratio: Length of the resized short side, as a multiple of `resolution`.
        interpolation: "bilinear" or "bicubic".

    Raises:
        DataError: A value is not valid; the message names all of those.
    """

    resolution: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_ratio: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        faults = []
        if self.resolution < 1:
            faults.append(f"resolution {self.resolution} (1 pixel at least)")
        if self.channels not in (1, 3):
            faults.append(f"channels {self.channels} (1 or 3)")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                faults.append(f"{len(values)} values of {name} (one for each of the channels)")
        if any(not value > 0 for value in self.std):
            faults.append(f"std {list(self.std)} (greater than 0)")
        if not self.resize_ratio >= 1:
            faults.append(f"resize_ratio {self.resize_ratio} (1 or more)")
        if self.interpolation not in INTERPOLATIONS:
            faults.append(f"interpolation {self.interpolation!r} ({' or '.join(INTERPOLATIONS)})")
        if faults:
            raise DataError(
                f"preprocessing for {self.channels} channel(s) needs valid values",
                "; ".join(faults),
                "Correct these values of the section `data`.",
            )

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Resize and crop an image.

        Args:
            image: (C, H, W) uint8.

        Returns:
            (C, resolution, resolution) uint8.
        """
        image = _trim(image)
        height, width = image.shape[1:]
        target = round(self.resolution * self.resize_ratio)
        short = min(height, width)
        if short != target:
            size = (target * height // short, target * width // short)
            image = self._resize(image, size)
        return _centre(image, self.resolution, self.resolution)

    def _resize(self, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        # In float32 rather than uint8, whose kernels round differently from machine to machine.
        resized = F.interpolate(image[None].float(), size, mode=self.interpolation, antialias=True)
        return resized[0].round().clamp(0, 255).to(torch.uint8)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Turn pixels into the values that a network reads: (x / 255 - mean) / std.

        Args:
            images: (N, C, H, W) uint8.

        Returns:
            (N, C, H, W) float32, on the device of `images`.
        """
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return (images.float() / 255 - mean) / std

    def with_resolution(self, resolution: int) -> Preprocess:
        """The same rule for another resolution, in pixels."""
        return replace(self, resolution=resolution)

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Read what `to_dict` wrote.

        Raises:
            DataError: A field is missing, unknown or not valid.
        """
        names = [field.name for field in fields(cls)]
        if set(values) != set(names):
            raise DataError(
                f"stored preprocessing has the fields {', '.join(names)}",
                ", ".join(sorted(values)) or "none",
                "Export the network again.",
            )
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def _trim(image: torch.Tensor) -> torch.Tensor:
    """Bound the aspect, since a strip of one pixel's width would be resized to gigabytes."""
    height, width = image.shape[1:]
    longest = LONGEST_ASPECT * min(height, width)
    return _centre(image, min(height, longest), min(width, longest))


def _centre(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The central (C, height, width) of an image."""
    top = round((image.shape[1] - height) / 2)
    left = round((image.shape[2] - width) / 2)
    return image[:, top : top + height, left : left + width]
