"""Images from a folder, or the digits that come with scikit-learn."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from edgesearch.data.decode import EXTENSIONS
from edgesearch.data.image_set import ImageSet
from edgesearch.errors import DataError

TEST_FOLDERS = ("val", "validation", "test")
"""Names of the folder beside `train` that holds the test split; the first present one counts."""


@dataclass(frozen=True)
class ImageSplits:
    """Images to train on, and others to evaluate on.

    Attributes:
        train: Images to train on.
        test: Images to evaluate on, or None if there are none.
    """

    train: ImageSet
    test: ImageSet | None


def open_images(
    source: str, root: Path | None, channels: int, holdout: float = 0.2, seed: int = 0
) -> ImageSplits:
    """Find the images that a configuration names.

    A folder may be laid out in these ways; deeper folders are searched, hidden ones are not:

    - `train/` beside `val/`, `validation/` or `test/`: these are the splits (`train/` alone, too).
    - Two or more folders with images, and no image beside them: each folder is a class. Where
      there are no splits, a share of each class is held out as the test split.
    - Anything else: all images are taken, without labels.

    Args:
        source: "folder", or "digits": 1,797 handwritten digits of 8×8 pixels from scikit-learn.
        root: The folder; not used for digits.
        channels: Channels that images are given with, 1 or 3.
        holdout: Share of each class that is held out, in 0 … 1; 0 holds nothing out.
        seed: Decides which images are held out.

    Raises:
        DataError: The source is unknown, or the folder is missing, not a folder or without
            images, or the test split has classes that the training split lacks.
    """
    if source == "digits":
        return _held_out(_open_digits(channels), holdout, seed)
    if source != "folder" or root is None:
        raise DataError(
            "the source of images is `digits`, or `folder` together with a root",
            f"source {source!r} and root {root}",
            "Correct `data.source` and `data.root`.",
        )
    _check_folder(root)
    folders = {folder.name: folder for folder in _subfolders(root)}
    test_name = next((name for name in TEST_FOLDERS if name in folders), None)
    if "train" in folders and test_name is not None:
        train = _open_folder(folders["train"], channels)
        test = _open_folder(folders[test_name], channels)
        return ImageSplits(train, _relabelled(test, train))
    if set(folders) == {"train"}:
        root = folders["train"]
    return _held_out(_open_folder(root, channels), holdout, seed)


def _open_digits(channels: int) -> ImageSet:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)
    return ImageSet(
        items=pixels[:, None].repeat(1, channels, 1, 1).unbind(),
        channels=channels,
        origin=Path("digits"),
        labels=torch.from_numpy(digits.target).long(),
        class_names=tuple(map(str, digits.target_names)),
    )


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        raise DataError(
            f"a folder of images at {root.absolute()}",
            "a file" if root.exists() else "nothing of that name",
            "Correct `data.root`.",
        )


def _open_folder(root: Path, channels: int) -> ImageSet:
    images = sorted(_images_below(root), key=lambda path: _natural(path.relative_to(root)))
    if not images:
        raise DataError(
            f"images in {root.absolute()}",
            "no file that ends in " + ", ".join(EXTENSIONS),
            "Put images there, or correct `data.root`.",
        )
    tops = [path.relative_to(root).parts for path in images]
    classes = list(dict.fromkeys(parts[0] for parts in tops))
    if len(classes) < 2 or any(len(parts) == 1 for parts in tops):
        return ImageSet(tuple(images), channels, root)
    labels = torch.tensor([classes.index(parts[0]) for parts in tops])
    return ImageSet(tuple(images), channels, root, labels, tuple(classes))


def _relabelled(test: ImageSet, train: ImageSet) -> ImageSet:
    """The test split with labels that are indices into the classes of the training split."""
    if test.labels is None or train.labels is None:
        return ImageSet(test.items, test.channels, test.origin)
    unknown = [name for name in test.class_names if name not in train.class_names]
    if unknown:
        raise DataError(
            f"the classes of {test.origin.absolute()} among those of {train.origin.absolute()}",
            f"{len(unknown)} other(s): {', '.join(unknown[:5])}",
            "Give both splits the same class folders.",
        )
    indices = torch.tensor([train.class_names.index(name) for name in test.class_names])
    return ImageSet(test.items, test.channels, test.origin, indices[test.labels], train.class_names)


def _held_out(images: ImageSet, share: float, seed: int) -> ImageSplits:
    """Split off the same share of each class, but never all of it."""
    if images.labels is None:
        return ImageSplits(images, None)
    generator = torch.Generator().manual_seed(seed)
    test: list[int] = []
    for label in range(len(images.class_names)):
        members = (images.labels == label).nonzero().flatten()
        count = min(round(len(members) * share), len(members) - 1)
        chosen = torch.randperm(len(members), generator=generator)[:count]
        test += members[chosen].tolist()
    held = set(test)
    train = [index for index in range(len(images)) if index not in held]
    return ImageSplits(images.subset(train), images.subset(sorted(test)) if test else None)


def _subfolders(root: Path) -> list[Path]:
    return [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


def _images_below(root: Path) -> Iterator[Path]:
    """Image files below a folder; links are followed, but none twice (they may form a circle)."""
    visited = set()
    for name, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(name)
        folders[:] = [] if real in visited else sorted(f for f in folders if f[0] != ".")
        if real not in visited:
            visited.add(real)
            yield from (Path(name, file) for file in files if _is_image(file))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def _natural(path: Path) -> list[tuple[list[tuple[int, str]], str]]:
    """A key that sorts names as people do: `2.png` before `10.png`."""

    def key(name: str) -> list[tuple[int, str]]:
        return [(int(number or -1), text) for number, text in re.findall(r"(\d+)|(\D+)", name)]

    return [(key(part), part) for part in path.parts]
