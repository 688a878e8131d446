"""Images in a folder of files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from edgesearch.data.decode import EXTENSIONS
from edgesearch.data.image_set import ImageSet
from edgesearch.data.settings import DataSettings
from edgesearch.data.splits import TRAIN, ImageSplits, name_of_test_split, with_classes_of
from edgesearch.errors import DataError


def open_folder(settings: DataSettings, root: Path, channels: int) -> ImageSplits:
    """Find the image files of a folder, and the splits and classes that its subfolders define.

    Subfolders are searched at any depth, except hidden ones.

    - `train/` beside `val/`, `validation/` or `test/`: these are the splits (`train/` alone, too).
    - Two or more subfolders with images, and no image beside them: each subfolder is a class.
    - Otherwise all images are used without labels.

    Raises:
        DataError: The folder is missing, or it or one of its splits has no images.
    """
    if not root.is_dir():
        raise DataError(
            f"a folder of images at {root.absolute()}",
            "a file" if root.exists() else "nothing of that name",
            "Correct `data.root`.",
        )
    names = {each.name for each in root.iterdir() if each.is_dir() and each.name[0] != "."}
    test = name_of_test_split(names)
    if test is not None:
        return with_classes_of(*(_image_set(root / name, channels) for name in (TRAIN, test)))
    return ImageSplits(_image_set(root / TRAIN if names == {TRAIN} else root, channels))


def _image_set(root: Path, channels: int) -> ImageSet:
    images = tuple(files_below(root, EXTENSIONS))
    if not images:
        raise DataError(
            f"images in {root.absolute()}",
            "no file that ends in " + ", ".join(EXTENSIONS),
            "Put images there, or correct `data.root`.",
        )
    parts = [path.relative_to(root).parts for path in images]
    classes = list(dict.fromkeys(names[0] for names in parts))
    if len(classes) < 2 or any(len(names) == 1 for names in parts):
        return ImageSet(images, channels, root)
    labels = torch.tensor([classes.index(names[0]) for names in parts])
    return ImageSet(images, channels, root, labels, tuple(classes))


def files_below(root: Path, endings: Sequence[str]) -> list[Path]:
    """Files with these extensions at any depth in natural order, except hidden ones."""
    found = [path for path in _walked(root) if path.suffix.lower() in endings]
    return sorted(found, key=lambda path: natural(path.relative_to(root)))


def _walked(root: Path) -> Iterator[Path]:
    """Follows links, each folder once (links may form a cycle)."""
    visited = set()
    for name, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(name)
        folders[:] = [] if real in visited else sorted(f for f in folders if f[0] != ".")
        if real not in visited:
            visited.add(real)
            yield from (Path(name, file) for file in files if not file.startswith("."))


def natural(path: Path) -> list[tuple[list[tuple[int, str]], str]]:
    """Natural sort key: `2.png` before `10.png`."""

    def key(name: str) -> list[tuple[int, str]]:
        return [(int(number or -1), text) for number, text in re.findall(r"(\d+)|(\D+)", name)]

    return [(key(part), part) for part in path.parts]
