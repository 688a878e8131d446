"""Boxes of the objects in an image, and the formats that they come in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

SMALLEST = 1e-6
"""Shares of an image below which a box has no area."""


@dataclass(frozen=True)
class Boxes:
    """The objects of an image.

    Attributes:
        corners: (M, 4) float32: left, top, right and bottom, as shares of the image's width and
            height, so that they hold for an image of any size.
        labels: (M,) int64 numbers of the classes.
        ignored: (M,) bool: crowds and difficult objects, which are neither learnt nor missed.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
    """

    kind: ClassVar[str] = "boxes"
    corners: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    width: int
    height: int

    def digest(self) -> bytes:
        """See `Annotation`."""
        total = hashlib.sha256(f"{self.width} {self.height}".encode())
        for values in (self.corners, self.labels, self.ignored):
            total.update(values.tobytes())
        return total.digest()


@dataclass
class Object:
    """A box as a file has it: corners in pixels of the image, from 0; see `Boxes`."""

    left: float
    top: float
    right: float
    bottom: float
    label: int
    ignored: bool = False


CLIPPED = "boxes that reach beyond their image, clipped"
DROPPED = "boxes outside of their image or without area, dropped"


def boxes_of(
    objects: Iterable[Object], width: int, height: int, name: str, told: list[tuple[str, str]]
) -> Boxes:
    """Boxes of an image; what is clipped or dropped is added to `told`, with the file's name."""
    corners, labels, ignored = [], [], []
    for each in objects:
        given = (each.left / width, each.top / height, each.right / width, each.bottom / height)
        left, top, right, bottom = (min(1.0, max(0.0, value)) for value in given)
        if not (right - left > SMALLEST and bottom - top > SMALLEST):  # also not a number
            told.append((DROPPED, name))
            continue
        if max(abs(a - b) for a, b in zip(given, (left, top, right, bottom), strict=True)) > 0.01:
            told.append((CLIPPED, name))
        corners.append((left, top, right, bottom))
        labels.append(each.label)
        ignored.append(each.ignored)
    return Boxes(
        np.array(corners, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(ignored, bool),
        width,
        height,
    )
