"""Labels in a CSV file: path and label in the first two columns, and perhaps the split."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from edgesearch.data.annotated import Found, annotation_path, number_of_class, split_named
from edgesearch.data.file_kinds import endings
from edgesearch.data.find_files import natural
from edgesearch.data.layout import TRAIN
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError

HEADS = ("path", "file", "filename", "file_name", "image", "image_id", "id")


FOLDERS = ("images", "train", "img")
"""Where the images may lie, besides the root and the folder of the list."""


USUAL = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG")


def _image(name: str, folders: Sequence[Path]) -> Path | None:
    """The image of a name, which may lack its ending."""
    for ending in ("", *USUAL, *sorted(endings())):
        for folder in folders:
            path = folder / f"{name}{ending}"
            if path.is_file():
                return path
    return None


def read_csv(settings: DataSettings, root: Path) -> Found:
    """Lines path,label or path,label,split; a first line with names of columns is skipped."""
    path = annotation_path(settings, root, ("labels.csv", "train.csv"))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(n, row) for n, row in enumerate(csv.reader(file), 1) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"a CSV file in UTF-8 at {path}", str(error), "Save it in UTF-8."
        ) from error
    if rows and rows[0][1][0].strip().lower() in HEADS:
        rows = rows[1:]
    for number, row in rows:
        if len(row) not in (2, 3) or not all(each.strip() for each in row):
            other = len(row) == 1 and any(each in row[0] for each in ";\t|")
            raise DataError(
                f"path,label or path,label,split in line {number} of {path}",
                ",".join(row)[:80],
                "Save the list with commas between its columns." if other else "Correct the line.",
            )
    names = {row[1].strip() for _, row in rows}
    classes = tuple(settings.classes or sorted(names, key=lambda each: natural((each,))))
    numbers = {name: number for number, name in enumerate(classes)}
    found = Found(classes, {})
    for number, row in rows:
        name, label, *split = (each.strip() for each in row)
        image = _image(name, (root, path.parent, *(root / each for each in FOLDERS)))
        if image is None:
            raise DataError(
                f"the image {name} of line {number} of {path} in {root.absolute()}",
                "no such file there",
                "Correct data.root, add the image, or remove the line.",
            )
        kind = split_named(split[0]) if split else TRAIN
        if kind is None:
            raise DataError(
                f"train, val or test in the third column of line {number} of {path}",
                split[0],
                "Correct the line.",
            )
        value = number_of_class(label, numbers, f"{path}, line {number}")
        found.splits.setdefault(kind, []).append((image, value))
    return found
