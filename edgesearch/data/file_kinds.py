"""Which files are images: by their ending, or by their content if the ending says nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from mimetypes import MimeTypes
from typing import BinaryIO

from PIL import Image

from edgesearch.data.decode import HEIC, load_plugins

NOT_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats of Pillow that it only identifies, or that hold drawings."""
SNIFFED = (
    *("AVIF", "BMP", "DDS", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PNG", "PPM"),
    *("PSD", "QOI", "SGI", "TIFF", "WEBP"),
)
"""Formats with an unmistakable beginning."""
CAMERA = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".exr", ".hdr", ".jxl", ".kdc", ".mrw"),
    *(".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw", ".x3f", ".xcf"),
)
"""Pictures that Pillow cannot read, or only their thumbnail."""

NO_IMAGE = "of another type"
FOREIGN = "in a format that Pillow cannot read"
_TYPES = MimeTypes()


@cache
def endings() -> frozenset[str]:
    """Endings of the image files that the installed Pillow reads."""
    load_plugins()
    known = Image.registered_extensions().items()
    return frozenset(
        ending for ending, kind in known if kind in Image.OPEN and kind not in NOT_PICTURES
    )


def common_endings() -> list[str]:
    """The most common ones of `endings`."""
    usual = (".jpg", ".png", ".webp", ".tif", ".bmp")
    return [ending for ending in usual if ending in endings()]


def why_no_image(name: str, opened: Callable[[], BinaryIO]) -> str | None:
    """Why a file is not read as an image, None if it is.

    Only files whose ending says nothing are opened.

    Raises:
        OSError: The file cannot be opened.
    """
    ending = os.path.splitext(name)[1].lower()
    if ending in endings():
        return None
    if ending in (".heic", ".heif"):
        return HEIC
    kind = _TYPES.guess_type(f"x{ending}")[0] or "application/octet-stream"
    if ending in CAMERA or kind.startswith("image/"):
        return FOREIGN
    if kind != "application/octet-stream":
        return NO_IMAGE
    with opened() as file:
        return None if _is_image(file) else NO_IMAGE


def _is_image(file: BinaryIO) -> bool:
    try:
        with Image.open(file, formats=[each for each in SNIFFED if each in Image.OPEN]):
            return True
    except Image.DecompressionBombError:
        return True  # decoding reduces or refuses it
    except Exception:  # see `decode_image`
        return False
