"""Images from wherever a configuration says: a folder, shards, torchvision, scikit-learn."""

from __future__ import annotations

from pathlib import Path

import torch

from edgesearch.data.decode import EXTENSIONS
from edgesearch.data.files import files_below
from edgesearch.data.image_set import ImageSet
from edgesearch.data.open_shards import open_shards
from edgesearch.data.splits import TEST_FOLDERS, ImageSplits, held_out, relabelled
from edgesearch.data.torchvision_sets import open_torchvision
from edgesearch.errors import DataError


def open_images(
    source: str,
    root: Path | None,
    channels: int,
    holdout: float = 0.2,
    seed: int = 0,
    *,
    name: str | None = None,
    cache_dir: Path | None = None,
) -> ImageSplits:
    """Find the images that a configuration names.

    A folder may be laid out in these ways; deeper folders are searched, hidden ones are not:

    - `train/` beside `val/`, `validation/` or `test/`: these are the splits (`train/` alone, too).
    - Two or more folders with images, and no image beside them: each folder is a class. Where
      there are no splits, a share of each class is held out as the test split.
    - Anything else: all images are taken, without labels.

    Args:
        source: "folder"; "shards": tar files, see `open_shards`; "torchvision": one of its sets,
            see `open_torchvision`; or "digits": 1,797 handwritten digits of 8×8 pixels from
            scikit-learn.
        root: The folder; not used for digits.
        channels: Channels that images are given with, 1 or 3.
        holdout: Share of each class that is held out, in 0 … 1; 0 holds nothing out.
        seed: Decides which images are held out.
        name: Name of the torchvision class.
        cache_dir: Keeps the indices of shards; without one they are made anew each time.

    Raises:
        DataError: The source is unknown, or what it needs is missing, damaged or without images,
            or the test split has classes that the training split lacks.
    """
    if source == "digits":
        return held_out(_open_digits(channels), holdout, seed)
    if source == "folder" and root is not None:
        splits = _open_splits(root, channels)
    elif source == "shards" and root is not None:
        splits = open_shards(root, channels, cache_dir)
    elif source == "torchvision" and root is not None and name is not None:
        splits = open_torchvision(name, root, channels)
    else:
        raise DataError(
            "the source of images is `digits`, or `folder` or `shards` together with a root, or "
            "`torchvision` together with a root and a name",
            f"source {source!r} and root {root} and name {name}",
            "Correct `data.source`, `data.root` and `data.name`.",
        )
    return held_out(splits.train, holdout, seed) if splits.test is None else splits


def _open_splits(root: Path, channels: int) -> ImageSplits:
    _check_folder(root)
    folders = {folder.name: folder for folder in _subfolders(root)}
    test_name = next((name for name in TEST_FOLDERS if name in folders), None)
    if "train" in folders and test_name is not None:
        train = _open_folder(folders["train"], channels)
        test = _open_folder(folders[test_name], channels)
        return ImageSplits(train, relabelled(test, train))
    if set(folders) == {"train"}:
        root = folders["train"]
    return ImageSplits(_open_folder(root, channels), None)


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
    images = files_below(root, EXTENSIONS)
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


def _subfolders(root: Path) -> list[Path]:
    return [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
