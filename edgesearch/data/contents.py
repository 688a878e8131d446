"""What was found at `data.root`, how it was understood, and what was left out."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace

CLASSES_NAMED = 8
ESCAPED = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that names are shown without: controls, undecodable bytes, line breaks."""


def readable_name(name: str) -> str:
    r"""A name of a file or class in one line of UTF-8.

    Line breaks, control characters and bytes that are not UTF-8 are written as `\n` or `\xff`.
    Spaces at an end, which many programs drop, are written as `\x20`. Composed and decomposed
    letters (as macOS writes them) become the same name.
    """
    if name.isascii() and name.isprintable() and name == name.strip():
        return name  # most names of most folders
    name = unicodedata.normalize("NFC", name)
    first, last = len(name) - len(name.lstrip()), len(name.rstrip())
    return "".join(
        _readable(char, at_an_end=not first <= place < last) for place, char in enumerate(name)
    )


def _readable(char: str, at_an_end: bool) -> str:
    if at_an_end and char == " ":
        return "\\x20"
    if unicodedata.category(char) not in ESCAPED:
        return char
    if unicodedata.category(char) == "Cs":  # an undecodable byte, as `os.fsdecode` keeps it
        return f"\\x{ord(char) & 0xFF:02x}"
    return char.encode("unicode_escape").decode("ascii")


@dataclass(frozen=True)
class LeftOut:
    """Files or folders that are not used, for one reason.

    Attributes:
        first: Name below the root of the first of them.
    """

    reason: str
    count: int
    first: str

    def __str__(self) -> str:
        return f"{self.count:,} {self.reason} ({'first ' * (self.count > 1)}{self.first})"


def tally(found: Iterable[tuple[str, str]]) -> tuple[LeftOut, ...]:
    """Pairs of a reason and a name, counted by reason."""
    return merged(LeftOut(reason, 1, name) for reason, name in found)


def merged(several: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """One for each reason, in order of appearance."""
    found: dict[str, LeftOut] = {}
    for each in several:
        former = found.get(each.reason, LeftOut(each.reason, 0, each.first))
        found[each.reason] = replace(former, count=former.count + each.count)
    return tuple(found.values())


@dataclass(frozen=True)
class Header:
    """Size in pixels of an image file, and whether it is stored in colour (None: unknown)."""

    width: int
    height: int
    colour: bool | None


@dataclass(frozen=True)
class Contents:
    """The images of a source as they were understood; `str` makes one line of it.

    Attributes:
        classes: Names of the classes; empty without labels.
        no_labels: Why training or test images have no labels; empty if both have.
        train: Number of training images.
        unlabelled: Training images without a class beside others with one; only for pre-training.
        first_unlabelled: Name of the first of them.
        test: Number of test images.
        test_from: Where the test images come from.
        smallest: Width and height in pixels of the smallest image of a sample; None if unknown.
        largest: Those of the largest.
        colour: Whether any image of the sample is stored in colour; None if unknown.
        left_out: What is not used, by reason.
    """

    classes: tuple[str, ...]
    no_labels: str
    train: int
    unlabelled: int
    first_unlabelled: str
    test: int
    test_from: str
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    colour: bool | None
    left_out: tuple[LeftOut, ...]

    def __str__(self) -> str:
        parts = [self._classes(), self._splits()]
        if self.smallest is not None and self.largest is not None:
            sizes = dict.fromkeys(f"{w} × {h}" for w, h in (self.smallest, self.largest))
            colour = {True: " in colour", False: " in grey", None: ""}[self.colour]
            parts.append(f"{' to '.join(sizes)} pixels{colour}")
        if self.left_out:
            parts.append(f"left out: {', '.join(map(str, self.left_out))}")
        return "; ".join(parts)

    def _classes(self) -> str:
        if not self.classes:
            return f"no classes ({self.no_labels})"
        more = ", …" if len(self.classes) > CLASSES_NAMED else ""
        return f"{len(self.classes)} classes: {', '.join(self.classes[:CLASSES_NAMED])}{more}"

    def _splits(self) -> str:
        train = f"{self.train:,} train"
        if self.unlabelled:
            train += (
                f" ({self.unlabelled:,} of them without a class, for pre-training only: "
                f"{'first ' * (self.unlabelled > 1)}{self.first_unlabelled})"
            )
        if self.test:
            return f"{train}, {self.test:,} test {self.test_from}"
        return f"{train}, no test images ({self.no_labels})" if self.classes else train

    def misfits(self, channels: int, resolution: int) -> list[str]:
        """What a space of these channels and largest resolution (pixels) loses of the images."""
        lost = []
        if self.colour and channels == 1:
            lost.append(
                "warning: the images are in colour and are read in grey: the space has 1 channel "
                "(space.in_channels)"
            )
        if self.smallest is not None and min(self.smallest) >= 2 * resolution:
            lost.append(
                f"images with a short side of {min(self.smallest)} pixels or more are shrunk to "
                f"{resolution}, the largest resolution of the space (space.resolutions)"
            )
        return lost
