"""Data sets of torchvision whose files exist already."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from devices.values import did_you_mean
from edgesearch.data.contents import readable_name
from edgesearch.data.decode import pixels_of
from edgesearch.data.file_kinds import endings
from edgesearch.data.folder import ImageFile
from edgesearch.data.image_set import ImageSet
from edgesearch.data.settings import DataSettings
from edgesearch.data.splits import ImageSplits
from edgesearch.errors import DataError

TRAIN_SPLITS = ("unlabeled", "train", "trainval", "train-standard")
"""Names of training splits, in order of preference."""
TEST_SPLITS = ("test", "val", "valid")
MAX_BYTES = 4 << 30
"""Limit of the images kept in memory when their files are unknown."""
NO_SETS = ("DatasetFolder", "FakeData", "ImageFolder", "VisionDataset")


def open_torchvision(
    settings: DataSettings, root: Path, channels: int, is_output: Callable[[Path], bool]
) -> ImageSplits:
    """Open one of torchvision's image data sets without downloading.

    A split `unlabeled` (STL10) is the training split; the labelled `train` then provides the
    reference images of classifiers.

    Raises:
        DataError: The data set is unknown, missing or damaged, a package that it needs is missing,
            or its samples are not single images.
    """
    kind = _class_of(str(settings.name))
    parameters = inspect.signature(kind).parameters
    opened: list[Any] = []
    if "train" in parameters:
        opened = [_open(kind, root, {"train": train}) for train in (True, False)]
    elif "split" in parameters:
        name, train = _first_split(kind, root, TRAIN_SPLITS)
        if train is None:
            raise DataError(
                f"a torchvision data set with a training split ({', '.join(TRAIN_SPLITS)})",
                f"{kind.__name__}, which has other splits",
                "Save its images as a folder, with data.source=folder.",
            )
        opened = [train, _first_split(kind, root, TEST_SPLITS)[1]]
        if name == "unlabeled":
            opened.append(_first_split(kind, root, ("train",))[1])
    else:
        opened = [_open(kind, root, {})]
    read = [None if each is None else _read(each, root, channels) for each in opened]
    splits = [None if each is None else each[0] for each in read]
    labels = [each.labels for each in splits if each is not None and each.labels is not None]
    names = _class_names(opened[0], max((int(each.max()) for each in labels), default=-1) + 1)
    train, test, labelled, *_ = (*(_named(each, names) for each in splits), None, None)
    assert train is not None and read[0] is not None
    return ImageSplits(
        train,
        test,
        labelled,
        test_from=f"of {kind.__name__}",
        no_labels="" if labels else f"{kind.__name__} has none",
        colour=read[0][1],
    )


def _class_of(name: str) -> Any:
    from torchvision import datasets

    known = [
        each
        for each, kind in sorted(vars(datasets).items())
        if inspect.isclass(kind)
        and issubclass(kind, datasets.VisionDataset)
        and each not in NO_SETS
    ]
    if name not in known:
        raise DataError(
            "data.name is the name of a class in torchvision.datasets, such as CIFAR10",
            repr(name),
            did_you_mean(name, known, f"Choose one of {', '.join(known)}.", most=3),
        )
    return getattr(datasets, name)


def _first_split(kind: Any, root: Path, names: Iterable[str]) -> tuple[str, Any]:
    """The first existing split with its name, ("", None) if there is none."""
    for name in names:
        try:
            return name, _open(kind, root, {"split": name})
        except ValueError:
            continue
    return "", None


def _open(kind: Any, root: Path, options: Mapping[str, Any]) -> Any:
    """Instantiate the data set; ValueError if it has no such split, else DataError."""
    parameters = inspect.signature(kind).parameters
    needed = [
        each.name
        for each in parameters.values()
        if each.default is each.empty
        and each.kind is each.POSITIONAL_OR_KEYWORD
        and each.name not in ("root", *options)
    ]
    if needed:
        raise _not_of_images(kind, f"{kind.__name__}, which needs {', '.join(needed)}")
    try:
        return kind(str(root), **options)
    except Exception as error:  # data sets raise many types for missing files
        if missing := _missing_package(error):
            raise DataError(
                f"the package that torchvision reads {kind.__name__} with",
                str(missing),
                f"pip install {missing.name or 'it'}",
            ) from error
        if isinstance(error, ValueError) and "argument split" in str(error):
            raise
        known = {k: v for k, v in options.items() if v != "unlabeled"}  # few sets have that split
        call = ", ".join([repr(str(root)), *(f"{k}={v!r}" for k, v in known.items())])
        get = f"from torchvision.datasets import {kind.__name__}; {kind.__name__}({call}"
        raise DataError(
            f"the files of torchvision's {kind.__name__} in {root.absolute()}",
            str(error).split(". You can use")[0].strip() or type(error).__name__,
            f'Download them with: python -c "{get}, download=True)"'
            if "download" in parameters
            else f"The documentation of torchvision.datasets.{kind.__name__} says how to get them.",
        ) from error


def _missing_package(error: BaseException | None) -> ImportError | None:
    """The import error behind an error; some data sets wrap it."""
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__ or error.__context__
    return error


def _read(opened: Any, root: Path, channels: int) -> tuple[ImageSet, bool | None]:
    """The images as files if the data set lists them, otherwise as pixels in memory.

    Returns:
        The images, and whether those in memory are in colour.
    """
    pairs: list[tuple[Any, Any]] = _files_of(opened)
    colour = None
    if not pairs:
        room = MAX_BYTES
        for index in range(len(opened)):
            image, label = _single(opened, index)
            colour = colour or image.mode != "L"
            pairs.append((pixels_of(image, channels), label))
            room -= pairs[-1][0].nbytes
            if room < 0:
                raise DataError(
                    f"images that fit into {MAX_BYTES >> 30} GiB of memory",
                    f"more, in {len(opened)} images of {type(opened).__name__}",
                    "Save its images as a folder or as shards.",
                )
    if not pairs:
        raise _not_of_images(type(opened), f"no images in {type(opened).__name__}")
    items, labels = zip(*pairs, strict=True)
    whole = all(isinstance(each, (int, np.integer)) and each >= 0 for each in labels)
    images = ImageSet(items, channels, root, torch.tensor(labels).long() if whole else None)
    return images, colour


def _single(opened: Any, index: int) -> tuple[Image.Image, Any]:
    """The image of a sample and its label, None if it is not a single label."""
    kind = type(opened)
    try:
        image, *labels = opened[index]
        if isinstance(image, Image.Image):
            image.load()
    except Exception as error:  # see `decode_image`
        raise DataError(
            f"images that can be read in torchvision's {kind.__name__}",
            f"image {index}: {error or type(error).__name__}",
            "Download the data set again, or save its images as a folder.",
        ) from error
    if not isinstance(image, Image.Image):
        raise _not_of_images(kind, f"{kind.__name__}, whose samples are not images")
    return image, labels[0] if len(labels) == 1 else None


def _files_of(opened: Any) -> list[tuple[Any, Any]]:
    """Files with their labels, in the attributes that torchvision's data sets use."""
    pairs: list[Any] = []
    for name in ("samples", "_samples"):
        pairs = pairs or list(getattr(opened, name, None) or ())
    for name in ("_image_files", "_images"):
        labels = getattr(opened, "_labels", None)
        pairs = pairs or list(zip(getattr(opened, name, None) or (), labels or (), strict=False))
    if not pairs or not isinstance(pairs[0], tuple) or not isinstance(pairs[0][0], (str, Path)):
        return []
    if Path(pairs[0][0]).suffix.lower() not in endings():
        return []
    return [(ImageFile.at(Path(pair[0])), pair[1]) for pair in pairs]


def _class_names(opened: Any, classes: int) -> tuple[str, ...]:
    """The data set's own class names if there are enough, otherwise numbers."""
    names = getattr(opened, "classes", None) or ()
    chosen = names if len(names) >= classes else range(classes)
    # ImageNet has several names for a class.
    names_of = (", ".join(each) if isinstance(each, tuple) else str(each) for each in chosen)
    return tuple(map(readable_name, names_of))


def _named(images: ImageSet | None, names: tuple[str, ...]) -> ImageSet | None:
    return images if images is None or images.labels is None else replace(images, class_names=names)


def _not_of_images(kind: Any, found: str) -> DataError:
    return DataError(
        "a torchvision data set of single images, each with one class or none",
        found,
        "Choose another data.name, or save its images as a folder.",
    )
