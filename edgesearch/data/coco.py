"""Boxes in COCO's JSON files.

Source: the format of https://cocodataset.org/#format-data: boxes are x, y, width and height in
pixels from 0; ids are not contiguous; crowds are regions of many objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgesearch.data.annotated import Found, annotation_path, number_of_class, split_named
from edgesearch.data.boxes import Object, boxes_of
from edgesearch.data.layout import TRAIN
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError

CROWDS = "crowd regions, which are neither learnt nor missed"
NO_BOX = "annotations without a box, dropped"
EMPTY = "images without any annotation, which count as background"
GAPS = "category ids that are not contiguous, numbered anew"
BESIDE = "_annotations.coco.json"
FOLDERS = ("JPEGImages", "images", "")


def read_coco(settings: DataSettings, root: Path) -> Found:
    """The boxes of all JSON files of a folder, or of one file; names say the split.

    Or those of a file beside the images of each split, as Roboflow exports them.
    """
    beside = [] if settings.annotations is not None else sorted(root.glob(f"*/{BESIDE}"))
    if beside:
        place, paths = root, beside
    else:
        place = annotation_path(settings, root, ("annotations", "coco", BESIDE))
        # COCO's own folder has captions and key points beside the boxes.
        boxes = [] if place.is_file() else sorted(place.glob("instances_*.json"))
        paths = [place] if place.is_file() else boxes or sorted(place.glob("*.json"))
    if not paths:
        raise DataError(
            f"COCO's JSON files in {place}", "none", "Set data.annotations to their folder."
        )
    read = {path: _read(path) for path in paths}
    names: dict[int, str] = {}
    for path, values in read.items():
        for each in values["categories"]:
            number, name = each["id"], each["name"]
            if names.setdefault(number, name) != name:
                raise DataError(
                    f"one name for the category id {number} in {place}",
                    f"{names[number]!r}, and {name!r} in {path.name}",
                    "Give all files the same categories.",
                )
    used = {a["category_id"] for values in read.values() for a in values["annotations"]}
    if unknown := sorted(used - set(names)):
        raise DataError(
            f"categories for all category ids in {place}",
            f"none for {', '.join(map(str, unknown[:5]))}",
            "Add them to `categories` of the files.",
        )
    classes = tuple(settings.classes or (names[key] for key in sorted(names) if key in used))
    numbers = {name: number for number, name in enumerate(classes)}
    found = Found(classes, {})
    if sorted(names) != list(range(min(names, default=1), min(names, default=1) + len(names))):
        found.told.append((GAPS, place.name))
    for path, values in read.items():
        split = split_named(path.parent.name if beside else path.stem) or TRAIN
        pairs = found.splits.setdefault(split, [])
        of_image: dict[str, list[dict[str, Any]]] = {each["id"]: [] for each in values["images"]}
        for each in values["annotations"]:
            if each["image_id"] not in of_image:
                raise DataError(
                    f"an image for each annotation in {path}",
                    f"annotation {each.get('id')} of image {each['image_id']}, which is not listed",
                    "Add the image to `images`, or remove the annotation.",
                )
            of_image[each["image_id"]].append(each)
        for image in values["images"]:
            file = _image_file(root, place, path, image["file_name"])
            objects = []
            for each in of_image[image["id"]]:
                if len(each.get("bbox") or ()) != 4:
                    found.told.append((NO_BOX, image["file_name"]))
                    continue
                crowd = bool(each.get("iscrowd"))
                if crowd:
                    found.told.append((CROWDS, image["file_name"]))
                left, top, width, height = each["bbox"]
                label = number_of_class(names[each["category_id"]], numbers, str(path))
                objects.append(Object(left, top, left + width, top + height, label, crowd))
            if not objects:
                found.told.append((EMPTY, image["file_name"]))
            size = image["width"], image["height"]
            pairs.append((file, boxes_of(objects, *size, image["file_name"], found.told)))
    return found


def _number(value: Any) -> int:
    """A category id; some tools write 1.0 or "1"."""
    number = float(value)
    if isinstance(value, bool) or number != int(number):
        raise ValueError
    return int(value)


def _name_of_id(value: Any) -> str:
    """An image's id, alike whether it is written as 1, 1.0 or "1"."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


_PLAIN: dict[str, Callable[[Any], Any]] = {
    **{"id": _name_of_id, "image_id": _name_of_id, "category_id": _number},
    **{"file_name": str, "name": str, "width": int, "height": int, "bbox": float},
}
"""What the values of keys become."""


def _plain(part: str, key: str, value: Any) -> Any:
    try:
        return _PLAIN["category_id" if (part, key) == ("categories", "id") else key](value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{value!r} as {key} in {part}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text("utf-8-sig"))
        for part, keys in (
            ("images", ("id", "file_name", "width", "height")),
            ("annotations", ("image_id", "category_id")),
            ("categories", ("id", "name")),
        ):
            for each in values[part]:
                for key in keys:
                    each[key] = _plain(part, key, each[key])
                if each.get("bbox"):
                    each["bbox"] = [_plain(part, "bbox", side) for side in each["bbox"]]
        for image in values["images"]:
            if min(image["width"], image["height"]) < 1:
                raise ValueError(f"no size of the image {image['file_name']}")
        return values
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"a JSON file with COCO's images, annotations and categories at {path}",
            f"{type(error).__name__}: {error}",
            "Correct the file, or data.annotations.",
        ) from error


def _image_file(root: Path, place: Path, path: Path, name: str) -> Path:
    split = path.stem.rpartition("_")[2]
    folder = place if place.is_dir() else place.parent
    bases = [root / base for base in (*FOLDERS, split, f"images/{split}")] + [folder]
    if path.name == BESIDE:
        bases = [path.parent, path.parent / "images"]
    for base in bases:
        if (base / name).is_file():
            return base / name
    raise DataError(
        f"the image {name} of {path} in {root.absolute()}",
        "no such file there, nor in " + ", ".join(each for each in FOLDERS if each),
        "Correct data.root, add the image, or remove it from the file.",
    )
