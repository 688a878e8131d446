"""Boxes in YOLO's text files: class, centre and size as shares of the image, a line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from edgesearch.data.annotated import Found, files_by_stem, read_lines, split_named
from edgesearch.data.boxes import Boxes, Object, boxes_of
from edgesearch.data.decode import header_of
from edgesearch.data.file_kinds import endings
from edgesearch.data.layout import TRAIN
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError

EMPTY = "images without a text file, which count as background"
LARGEST = 2.0
"""Sides of a box, as shares of its image; larger ones are pixels."""
NAMES = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")


def read_yolo(settings: DataSettings, root: Path) -> Found:
    """images/<split>/… with labels/<split>/…, or <split>/images/… with <split>/labels/…."""
    images = files_by_stem(root, tuple(endings()))
    images = {stem: path for stem, path in images.items() if "images" in Path(stem).parts}
    texts = settings.annotations or root
    found = Found(tuple(settings.classes or _names(root)), {})
    known: set[Path] = set()
    for stem, path in images.items():
        parts = ["labels" if part == "images" else part for part in Path(stem).parts]
        text = texts.joinpath(*(parts if texts == root else parts[parts.index("labels") + 1 :]))
        text = text.with_name(f"{text.name}.txt")
        split = next((kind for part in parts[:-1] if (kind := split_named(part))), TRAIN)
        if not text.is_file():
            found.told.append((EMPTY, stem))
        known.add(text)
        boxes = _boxes(text, path, stem, found)
        if boxes is not None:
            found.splits.setdefault(split, []).append((path, boxes))
    lonely = [
        path
        for path in sorted(texts.rglob("*.txt"))
        if path not in known
        and path.name not in NAMES  # labelImg writes classes.txt beside the labels
        and (texts != root or "labels" in path.relative_to(root).parts)
    ]
    if lonely:
        raise DataError(
            f"an image for each text file of labels in {texts}",
            f"{len(lonely)} without one; the first: {lonely[0]}",
            "Add the images, or remove the files.",
        )
    return found


def _names(root: Path) -> list[str]:
    """Names of the classes, in the order of their numbers."""
    for name in NAMES:
        path = root / name
        if not path.is_file():
            continue
        lines = read_lines(path)
        if path.suffix != ".yaml":
            return [line.strip() for line in lines if line.strip()]
        try:
            names: Any = yaml.safe_load("\n".join(lines))["names"]
            if isinstance(names, str):
                raise TypeError(f"the text {names!r}")
            listed = (
                [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names
            )
            return [str(each) for each in listed]
        except (yaml.YAMLError, LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"`names` in {path}, a list or a name for each number", str(error), "Correct it."
            ) from error
    raise DataError(
        f"names of the classes in {root.absolute()} ({', '.join(NAMES)})",
        "none of these files",
        "Add classes.txt with a name a line, in the order of their numbers; or set data.classes.",
    )


def _boxes(text: Path, image: Path, stem: str, found: Found) -> Boxes | None:
    header = header_of(image)
    if header is None:
        found.told.append(("damaged", stem))
        return None
    objects = []
    lines = read_lines(text) if text.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            label, x, y, width, height = map(float, line.split())
            int(label)
        except (ValueError, OverflowError) as error:  # also not a number, or infinite
            raise DataError(
                f"five numbers (class, x, y, width, height) in line {number} of {text}",
                line.strip()[:80],
                "Correct the line; lines of polygons are not boxes.",
            ) from error
        if label != int(label) or not 0 <= label < len(found.classes):
            raise DataError(
                f"a class from 0 to {len(found.classes) - 1} in line {number} of {text}",
                f"{label:g}",
                "Correct the line, or the names of the classes.",
            )
        if max(width, height) > LARGEST:
            raise DataError(
                f"centre and size as shares of the image, 0 to 1, in line {number} of {text}",
                line.strip()[:80],
                "Divide pixels by the width and height of the image.",
            )
        across, down = header.width, header.height
        corners = ((x - width / 2) * across, (y - height / 2) * down)
        ends = ((x + width / 2) * across, (y + height / 2) * down)
        objects.append(Object(*corners, *ends, int(label)))
    return boxes_of(objects, header.width, header.height, stem, found.told)
