"""Decoding of image files to 8-bit pixels."""

from __future__ import annotations

import contextlib
import threading
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from edgesearch.data.contents import Header, readable_name
from edgesearch.errors import DataError

MOST_PIXELS = 178_956_970
"""Largest image that is decoded, in pixels (0.5 GiB of RGB): Pillow's own limit. JPEG files have
none, as they can be decoded at an eighth of their size."""
KEPT_PIXELS = 1 << 26
"""Larger images are reduced to a half, a quarter or an eighth of their width and height."""
SIXTEEN_BIT = 65535

HEIC = "in HEIC, which needs `pip install pillow-heif`"
DAMAGED = "damaged"

_one_large_image = threading.Lock()
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # the limit is enough


class UnreadableImage(DataError):
    """An image that cannot be read; `reason` is the same for all that share it."""

    reason = DAMAGED


@cache
def load_plugins() -> None:
    """Make Pillow know all of its formats, and HEIC if pillow-heif is installed."""
    Image.init()
    with contextlib.suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()


def decode_image(file: Path | BinaryIO, channels: int, name: str | None = None) -> torch.Tensor:
    """Decode an image file (its first frame) to (channels, H, W) uint8.

    - EXIF orientation is applied.
    - 16-bit greyscale is scaled to 8 bits (65535 becomes 255) without stretching the contrast, so
      images stay comparable. (Pillow reads the upper 8 bits of 16-bit colour.)
    - Transparent pixels become black: programs mostly store zeros under full transparency, and
      convolutions pad with zeros. Dropping the alpha channel would show arbitrary hidden colours.
    - Colour becomes grey with the weights of ITU-R 601; grey becomes colour by repetition.
    - Images of more than `KEPT_PIXELS` are reduced to a half, a quarter or an eighth.

    Args:
        file: Path or content.
        channels: 1 for grey, 3 for RGB.
        name: Name in error messages; the path if None.

    Raises:
        UnreadableImage: The file cannot be read, is too large, or its pixel range is undefined.
    """
    load_plugins()
    try:
        with _opened(file) as image:
            factor = _reduction(image)
            if factor > 1 and isinstance(image, JpegImageFile):
                image.draft(None, (image.width // factor, image.height // factor))
            with _one_large_image if factor > 1 else contextlib.nullcontext():
                image.load()
                return pixels_of(_upright(image), channels)
    except Exception as error:  # Pillow raises many types on damaged files
        unreadable = UnreadableImage(
            "an image that can be read",
            f"{name or readable_name(str(file))}: {error or type(error).__name__}",
            "Repair the file or remove it from the folder.",
        )
        unreadable.reason = _reason(file, error)
        raise unreadable from error


def header_of(file: Path | BinaryIO) -> Header | None:
    """Size and colour of an image file, without decoding it; None if unreadable."""
    load_plugins()
    try:
        with _opened(file) as image:
            grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
            return Header(image.width, image.height, None if image.mode == "P" else not grey)
    except Exception:  # see `decode_image`
        return None


def pixels_of(image: Image.Image, channels: int) -> torch.Tensor:
    """Pixels (channels, H, W) uint8 of a loaded image; see `decode_image`."""
    converted = _to_eight_bits(image).convert("L" if channels == 1 else "RGB")
    if (factor := _reduction(converted)) > 1:
        converted = converted.reduce(factor)
    pixels = np.array(converted)
    return torch.from_numpy(pixels).view(*pixels.shape[:2], channels).permute(2, 0, 1).contiguous()


class _UndefinedRange(ValueError):
    """Pixel values that do not say what is black and what is white."""


class _TooLarge(ValueError):
    """An image whose pixels would take too much memory."""


def _opened(file: Path | BinaryIO) -> ImageFile.ImageFile:
    """The image, its pixels not loaded; JPEG files of any size."""
    try:
        return Image.open(file)
    except Image.DecompressionBombError as error:
        try:
            return JpegImageFile(file)  # not through `Image.open`, which refuses the size
        except SyntaxError:
            found = str(error).partition(" exceeds")[0]
            raise _TooLarge(f"{found}; at most {MOST_PIXELS:,} pixels") from error


def _reduction(image: Image.Image) -> int:
    """The factor, a power of two, that leaves at most `KEPT_PIXELS`."""
    factor = 1
    while (image.width // factor) * (image.height // factor) > KEPT_PIXELS:
        factor *= 2
    return factor


def _reason(file: Path | BinaryIO, error: Exception) -> str:
    """What is wrong with a file, in words that all files share that have it."""
    if isinstance(error, _UndefinedRange):
        return "with floating-point or signed pixels, whose range is not defined"
    if isinstance(error, _TooLarge):
        return f"too large (JPEG is reduced; other formats: at most {MOST_PIXELS:,} pixels)"
    if isinstance(error, MemoryError):
        return "too large for the memory of this machine"
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(file)
    if isinstance(error, OSError) and error.errno is not None:
        return f"that cannot be opened ({error.strerror})"
    return DAMAGED


def _unidentified(file: Path | BinaryIO) -> str:
    with contextlib.suppress(OSError):
        if isinstance(file, Path):
            with file.open("rb") as opened:
                start = opened.read(16)
        else:
            file.seek(0)
            start = file.read(16)
        if not start:
            return "empty"
        if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"hevc", b"msf1"):
            return HEIC
        if any(accept is not None and accept(start) is True for _, accept in Image.OPEN.values()):
            return DAMAGED
    return "with the name of an image and other content"


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
            found = f"pixel values {values.min()} to {values.max()}, not 0 to 65535"
            raise _UndefinedRange(found)
        return Image.fromarray(((values * 255 + SIXTEEN_BIT // 2) // SIXTEEN_BIT).astype(np.uint8))
    if image.mode == "LAB":
        return image.convert("RGB")  # Pillow knows no way from it to grey
    if image.mode == "F":
        raise _UndefinedRange("pixels are floating-point numbers, whose range is not defined")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(opaque, image.convert("RGBA"))
    return image
