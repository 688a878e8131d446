"""Images whose labels stand in files beside them: lists, boxes and label maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from edgesearch.data.contents import readable_name, tally
from edgesearch.data.folder import ImageFile, check_folder
from edgesearch.data.image_set import Annotation, ImageSet
from edgesearch.data.layout import TEST, TRAIN, VALID, split_within
from edgesearch.data.settings import DataSettings
from edgesearch.data.splits import ImageSplits
from edgesearch.errors import DataError

UNANNOTATED = "without an annotation: background"


@dataclass
class Found:
    """What annotation files say.

    Attributes:
        classes: Names of the classes.
        splits: By TRAIN, VALID, TEST: the image and its label or annotation.
        told: Reason and name of what is left out or counts otherwise than the files say.
    """

    classes: tuple[str, ...]
    splits: dict[str, list[tuple[Path, int | Annotation]]]
    told: list[tuple[str, str]] = field(default_factory=list)


Reader = Callable[[DataSettings, Path], Found]


def open_annotated(
    settings: DataSettings,
    root: Path,
    channels: int,
    is_output: Callable[[Path], bool],
    read: Reader,
) -> ImageSplits:
    """The images that annotation files name, with their labels.

    Raises:
        DataError: The files are missing, damaged or contradict each other, or name no image.
    """
    check_folder(root, is_output)
    found = read(settings, root)
    tests = [kind for kind in (TEST, VALID) if found.splits.get(kind)]
    if not found.splits.get(TRAIN):
        raise DataError(
            f"training images with labels ({settings.labels}) in {root.absolute()}",
            f"{', '.join(f'{len(v)} {k}' for k, v in found.splits.items()) or 'none'}",
            "Correct data.root, data.labels or data.annotations.",
        )
    told = list(found.told)
    if len(tests) > 1:
        names = [_name(path, root) for path, _ in found.splits[tests[1]]]
        told += [(f"in {tests[1]}, which is not used", name) for name in names]
    train = _images(found.splits[TRAIN], found.classes, root, channels)
    if not tests:
        return ImageSplits(train, left_out=tally(told))
    test = _images(found.splits[tests[0]], found.classes, root, channels)
    return ImageSplits(train, test, test_from=f"in {tests[0]}", left_out=tally(told))


def _images(
    pairs: Sequence[tuple[Path, int | Annotation]],
    classes: tuple[str, ...],
    root: Path,
    channels: int,
) -> ImageSet:
    paths, values = zip(*pairs, strict=True)
    items = tuple(map(ImageFile.at, paths))
    names = tuple(map(readable_name, classes))
    if isinstance(values[0], int):
        labels = torch.tensor(values, dtype=torch.int64)
        return ImageSet(items, channels, root, labels, names)
    return ImageSet(items, channels, root, None, names, values)


def _name(path: Path, root: Path) -> str:
    return readable_name(path.relative_to(root).as_posix() if root in path.parents else str(path))


def annotation_path(settings: DataSettings, root: Path, usual: Sequence[str]) -> Path:
    """The file or folder of the annotations: `data.annotations`, or a usual name below the root.

    Raises:
        DataError: There is none.
    """
    given = settings.annotations
    places = [given] if given is not None else [root / name for name in usual]
    for place in places:
        if place.exists():
            return place
    raise DataError(
        f"annotations ({settings.labels}) at {' or '.join(str(place) for place in places)}",
        "nothing of that name",
        "Set data.annotations to their file or folder.",
    )


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, with or without a mark at its beginning.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"a text file in UTF-8 at {path}", str(error), "Save it in UTF-8."
        ) from error


def split_named(name: str) -> str | None:
    """The split that the name of a file or folder means, such as instances_val2017."""
    return split_within(name.replace("_", " "))


def files_by_stem(folder: Path, endings: Sequence[str]) -> Mapping[str, Path]:
    """Files below a folder with one of these endings, by their path without it."""
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in endings and path.is_file()
    }


def number_of_class(name: str, classes: Mapping[str, int], where: str) -> int:
    """The number of a class that `data.classes` names.

    Raises:
        DataError: It does not.
    """
    if name in classes:
        return classes[name]
    raise DataError(
        f"classes of data.classes ({', '.join(classes)}) in {where}",
        repr(name),
        "Add the name to data.classes, leave data.classes out, or correct the file.",
    )
