"""Decoding of image files to 8-bit pixels."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps

from edgesearch.errors import DataError

EXTENSIONS = (
    *(".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""File extensions of images."""

SIXTEEN_BIT = 65535


def decode_image(file: Path | BinaryIO, channels: int, name: str | None = None) -> torch.Tensor:
    """Decode an image file (its first frame) to (channels, H, W) uint8.

    - EXIF orientation is applied.
    - 16-bit greyscale is scaled to 8 bits (65535 becomes 255) without stretching the contrast, so
      images stay comparable. (Pillow reads the upper 8 bits of 16-bit colour.)
    - Transparent pixels become black: programs mostly store zeros under full transparency, and
      convolutions pad with zeros. Dropping the alpha channel would show arbitrary hidden colours.
    - Colour becomes grey with the weights of ITU-R 601; grey becomes colour by repetition.

    Args:
        file: Path or content.
        channels: 1 for grey, 3 for RGB.
        name: Name in error messages; the path if None.

    Raises:
        DataError: The file cannot be read, or its pixel range is undefined.
    """
    try:
        with Image.open(file) as image:
            image.load()
            return pixels_of(_upright(image), channels)
    except Exception as error:  # Pillow raises many types on damaged files
        raise DataError(
            "an image that can be read",
            f"{name or file}: {error or type(error).__name__}",
            "Repair the file or remove it from the folder.",
        ) from error


def pixels_of(image: Image.Image, channels: int) -> torch.Tensor:
    """Pixels (channels, H, W) uint8 of a loaded image; see `decode_image`."""
    pixels = np.array(_to_eight_bits(image).convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(pixels).view(*pixels.shape[:2], channels).permute(2, 0, 1).contiguous()


def _upright(image: Image.Image) -> Image.Image:
    # Damaged EXIF data must not reject an image with intact pixels.
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """An opaque image of 8 bits per channel (or 1 bit, or with a palette)."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > SIXTEEN_BIT:
            raise ValueError(f"pixel values {values.min()} to {values.max()}, not 0 to 65535")
        return Image.fromarray(((values * 255 + SIXTEEN_BIT // 2) // SIXTEEN_BIT).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, whose range is not defined")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(opaque, image.convert("RGBA"))
    return image
