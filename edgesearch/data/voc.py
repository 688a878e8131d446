"""Boxes in Pascal VOC's XML files.

Source: the VOC 2012 development kit: corners are pixels counted from 1, both inside of the box.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from edgesearch.data.annotated import (
    Found,
    annotation_path,
    files_by_stem,
    number_of_class,
    read_lines,
    split_named,
)
from edgesearch.data.boxes import Boxes, Object, boxes_of
from edgesearch.data.file_kinds import endings
from edgesearch.data.image_set import Annotation
from edgesearch.data.layout import TRAIN
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError

DIFFICULT = "difficult objects, which are neither learnt nor missed"
EMPTY = "images without any object, which count as background"
UNLISTED = "images in no list of ImageSets/Main, which are not used"


def read_voc(settings: DataSettings, root: Path) -> Found:
    """Annotations/*.xml, JPEGImages/ and the lists of ImageSets/Main; or files beside images."""
    usual: tuple[str, ...] = ("Annotations", "annotations")
    if settings.annotations is None and not any((root / name).exists() for name in usual):
        usual = ("",) if any(True for _ in root.rglob("*.xml")) else usual
    place = annotation_path(settings, root, usual)
    files = files_by_stem(place, (".xml",))
    if not files:
        raise DataError(
            f"Pascal VOC's XML files in {place}", "none", "Set data.annotations to their folder."
        )
    images = files_by_stem(root / "JPEGImages" if (root / "JPEGImages").is_dir() else root, _IMAGES)
    by_name = {Path(stem).name: path for stem, path in images.items()}
    parsed = {stem: _parse(path) for stem, path in files.items()}
    names = sorted({name for objects in parsed.values() for name in _names(objects)})
    classes = tuple(settings.classes or names)
    numbers = {name: number for number, name in enumerate(classes)}
    found, lists = Found(classes, {}), _lists(root)
    corners = {stem: _corners(tree, files[stem]) for stem, tree in parsed.items()}
    zero_based = any(0 in box[:2] for boxes in corners.values() for box in boxes)
    if zero_based:
        found.told.append(("boxes from 0 instead of 1, as some tools write them", place.name))
    for split, stems in (lists or _by_folder(files)).items():
        pairs: list[tuple[Path, int | Annotation]] = found.splits.setdefault(split, [])
        for stem in stems:
            image = images.get(stem) or by_name.get(Path(stem).name)
            if image is None:
                raise DataError(
                    f"an image for {stem} in {root.absolute()}",
                    "an annotation or an entry of a list alone",
                    "Add the image, or remove the annotation and the entry.",
                )
            if stem not in parsed:
                raise DataError(
                    f"{place / stem}.xml for an entry of ImageSets/Main",
                    "no such file",
                    "Add the file, or remove the entry.",
                )
            boxes = _boxes(parsed[stem], corners[stem], files[stem], numbers, zero_based, found)
            pairs.append((image, boxes))
    listed = {stem for stems in lists.values() for stem in stems}
    found.told += [(UNLISTED, stem) for stem in files if lists and stem not in listed]
    return found


_IMAGES = tuple(endings())


def _parse(path: Path) -> ElementTree.Element:
    try:
        tree = ElementTree.parse(path).getroot()
        width, height = (int(tree.findtext(f"size/{side}") or 0) for side in ("width", "height"))
        if width < 1 or height < 1:
            raise ValueError("no size of the image")
        return tree
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise DataError(
            f"a Pascal VOC annotation with the size of its image at {path}",
            f"{type(error).__name__}: {error}",
            "Correct the file, or remove it.",
        ) from error


def _names(tree: ElementTree.Element) -> list[str]:
    return [each.findtext("name") or "" for each in tree.iterfind("object")]


def _by_folder(stems: Iterable[str]) -> dict[str, list[str]]:
    """The files by the split that their folders name, of training if none does."""
    found: dict[str, list[str]] = {}
    for stem in stems:
        splits = (split_named(part) for part in Path(stem).parts[:-1])
        found.setdefault(next(filter(None, splits), TRAIN), []).append(stem)
    return found


def _lists(root: Path) -> dict[str, list[str]]:
    """The entries of ImageSets/Main/{train,val,test}.txt; a split named by its file."""
    found: dict[str, list[str]] = {}
    for path in sorted((root / "ImageSets" / "Main").glob("*.txt")):
        split = split_named(path.stem)
        if split is not None and path.stem.lower() in ("train", "val", "valid", "test"):
            found[split] = [line.split()[0] for line in read_lines(path) if line.strip()]
    return found


def _corners(tree: ElementTree.Element, path: Path) -> list[list[float]]:
    """Left, top, right and bottom of each object, as the file has them."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    try:
        return [
            [float(each.findtext(f"bndbox/{side}") or "") for side in sides]
            for each in tree.iterfind("object")
        ]
    except ValueError as error:
        raise DataError(
            f"numbers for {', '.join(sides[:3])} and {sides[3]} of each object in {path}",
            str(error),
            "Correct the file.",
        ) from error


def _boxes(
    tree: ElementTree.Element,
    corners: list[list[float]],
    path: Path,
    numbers: dict[str, int],
    zero_based: bool,
    found: Found,
) -> Boxes:
    objects = []
    for each, (left, top, right, bottom) in zip(tree.iterfind("object"), corners, strict=True):
        if not zero_based:
            left, top = left - 1, top - 1
        difficult = (each.findtext("difficult") or "").strip() == "1"
        if difficult:
            found.told.append((DIFFICULT, path.name))
        label = number_of_class(each.findtext("name") or "", numbers, str(path))
        objects.append(Object(left, top, right, bottom, label, difficult))
    if not objects:
        found.told.append((EMPTY, path.name))
    width, height = (int(tree.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    return boxes_of(objects, width, height, path.name, found.told)
