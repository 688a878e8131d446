"""Images from a folder of tar files, or from those of a pattern."""

from __future__ import annotations

import glob
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from edgesearch.data.files import files_below, natural
from edgesearch.data.image_set import ImageSet
from edgesearch.data.shards import index_shard
from edgesearch.data.splits import TEST_FOLDERS, ImageSplits, relabelled
from edgesearch.errors import DataError

_SPLIT = re.compile(
    rf"(?<![a-z])(train|{'|'.join(sorted(TEST_FOLDERS, reverse=True))})(?![a-z])", re.I
)
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def open_shards(root: Path, channels: int, cache_dir: Path | None = None) -> ImageSplits:
    """Find the images in shards; nothing is unpacked.

    Shards whose name (or folder below the root) begins with `train` are the training split and
    those with `val`, `validation` or `test` the test split, if there are both; otherwise all
    shards are taken together. See `index_shard` for what is in a shard.

    Args:
        root: A folder with `.tar` files at any depth, one such file, or a pattern with `*`, `?`,
            `{000..146}` or `{train,val}` in it.
        channels: Channels that images are given with, 1 or 3.
        cache_dir: Keeps the indices.

    Raises:
        DataError: There are no shards or no images in them, one is missing or damaged, or some
            images have labels and others not.
    """
    shards = find_shards(root)
    folders = [str(shard.parent) for shard in shards]
    origin = root if root.is_dir() else Path(os.path.commonpath(folders))
    splits: dict[str, list[Path]] = {}
    for shard in shards:
        splits.setdefault(_split_of(shard.relative_to(origin)), []).append(shard)
    test_name = next((name for name in TEST_FOLDERS if name in splits), None)
    if "train" not in splits or test_name is None:
        return ImageSplits(_image_set(shards, origin, channels, cache_dir), None)
    train, test = (
        _image_set(splits[name], origin, channels, cache_dir) for name in ("train", test_name)
    )
    return ImageSplits(train, relabelled(test, train))


def find_shards(root: Path) -> list[Path]:
    """The shards that a folder, a file or a pattern names, in the natural order of their names.

    Raises:
        DataError: There are none, or one that is named in full is missing.
    """
    if root.is_dir():
        found = files_below(root, (".tar",))
    else:
        found = []
        for pattern in _expanded(str(root)):
            matches = [pattern]
            if glob.has_magic(pattern) and not Path(pattern).exists():
                matches = glob.glob(pattern, recursive=True)
            found += [Path(match) for match in matches]
    if not found:
        other = "no file that ends in .tar" if root.is_dir() else "no file of that name"
        raise DataError(
            f"shards (.tar, not compressed) at {root.absolute()}", other, "Correct `data.root`."
        )
    return sorted(set(found), key=natural)


def _expanded(pattern: str) -> list[str]:
    """A pattern without braces for each combination, as a shell writes them out."""
    braces = _BRACES.search(pattern)
    if braces is None:
        return [pattern]
    first, last, words = braces.groups()
    if words is None:
        numbers = range(int(first), int(last) + 1)
        choices = [str(number).zfill(len(first)) for number in numbers]
    else:
        choices = words.split(",")
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [whole for choice in choices for whole in _expanded(f"{before}{choice}{after}")]


def _split_of(shard: Path) -> str:
    """By the shard's own name, else by the nearest folder that tells."""
    names = (_SPLIT.search(part) for part in reversed(shard.parts))
    return next((name.group(1).lower() for name in names if name), "")


def _image_set(shards: list[Path], origin: Path, channels: int, cache_dir: Path | None) -> ImageSet:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        indices = pool.map(partial(index_shard, cache_dir=cache_dir), shards)
        found = [entry for index in indices for entry in index]
    if not found:
        raise DataError(
            f"images in the {len(shards)} shard(s) in {origin.absolute()}",
            "no member with the ending of an image",
            "Put images there, or correct `data.root`.",
        )
    items = tuple(image for image, _ in found)
    labels = [label for _, label in found if label is not None]
    if not labels:
        return ImageSet(items, channels, origin)
    if len(labels) < len(items):
        without = next(image for image, label in found if label is None)
        raise DataError(
            f"a label for each image of the shards in {origin.absolute()}, or for none",
            f"{len(items) - len(labels)} of {len(items)} without, such as {without}",
            "Add their .cls members, or leave out all of them.",
        )
    classes, indices_of = torch.tensor(labels).unique(return_inverse=True)
    return ImageSet(items, channels, origin, indices_of, tuple(map(str, classes.tolist())))
