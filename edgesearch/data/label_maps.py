"""Label maps: the class of each pixel, in one file for an image or in a mask for each class."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from edgesearch.data.annotated import Found, annotation_path, files_by_stem, read_lines, split_named
from edgesearch.data.decode import header_of
from edgesearch.data.file_kinds import endings
from edgesearch.data.layout import TRAIN
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError

IGNORED = 255
"""The value of pixels without a class, which are neither learnt nor judged."""
_LOSSLESS, _LOSSY = (".png", ".bmp", ".tif", ".tiff", ".gif"), (".jpg", ".jpeg")
WITHOUT_MAP = "images without a label map, which are not used"


@dataclass(frozen=True)
class LabelMap:
    """The class of each pixel of an image, in files.

    Attributes:
        files: One file of class numbers; or by class the file of its mask, whose pixels above 0 are
            of that class (the last of several counts, others are of class 0).
        classes: Number of classes, background included.
    """

    kind: ClassVar[str] = "maps"
    files: tuple[tuple[int, Path], ...]
    classes: int
    masks: bool = False

    def digest(self) -> bytes:
        """See `Annotation`: names and sizes, as for images."""
        total = hashlib.sha256()
        for label, path in self.files:
            total.update(f"{label} ".encode() + os.fsencode(path.name))
            total.update(str(path.stat().st_size).encode())
        return total.digest()

    def values(self) -> set[int]:
        """The values that its files hold.

        Raises:
            DataError: A file is no map.
        """
        return {int(value) for _, path in self.files for value in np.unique(_indices(path))}

    def load(self, height: int, width: int) -> np.ndarray:
        """The map (height, width) uint8 of an image of this size.

        Raises:
            DataError: A file is no map, of another size, or has values that are no class.
        """
        whole = np.zeros((height, width), np.uint8)
        for label, path in self.files:
            values = _indices(path)
            if values.shape != (height, width):
                raise DataError(
                    f"a label map of {width} × {height} pixels, as its image, at {path}",
                    f"{values.shape[1]} × {values.shape[0]}",
                    "Make the map anew at the size of the image.",
                )
            if self.masks:
                whole[values > 0] = label
                continue
            wrong = np.unique(values[(values >= self.classes) & (values != IGNORED)])
            if len(wrong):
                raise DataError(
                    f"values from 0 to {self.classes - 1} (or {IGNORED} for none) in {path}",
                    ", ".join(map(str, wrong[:5])),
                    "Correct the map, or name all classes in data.classes.",
                )
            whole = values.astype(np.uint8)
        return whole


def _indices(path: Path) -> np.ndarray:
    """Pixel values (H, W), of a palette image its indices."""
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode == "1":
                return np.array(image).astype(np.uint8)  # 0 and 1; as "L" it would be 255
            if image.mode in ("P", "L") or image.mode.startswith("I"):
                return np.array(image)
            mode, first = image.mode, np.array(image)[..., 0]
            same = all((np.array(image)[..., n] == first).all() for n in range(min(3, len(mode))))
            if same and mode in ("RGB", "RGBA"):
                return np.asarray(first)
    except Exception as error:  # Pillow raises many types on damaged files
        raise DataError(
            f"a label map that can be read at {path}", str(error), "Repair or remove it."
        ) from error
    raise DataError(
        f"class numbers or a palette in {path}",
        f"colours ({mode}): the palette was lost when it was saved",
        "Save the map with one channel of class numbers, or with its palette.",
    )


def read_maps(settings: DataSettings, root: Path) -> Found:
    """images/<split>/ID.* with labels/<split>/ID.png."""
    place = annotation_path(settings, root, ("labels", "masks", "annotations", "SegmentationClass"))
    maps = _lossless(place)
    classes = tuple(settings.classes or _names(root))
    targets: dict[str, Any] = {
        stem: LabelMap(((0, path),), len(classes)) for stem, path in maps.items()
    }
    return _found(root, place, classes, targets)


def read_masks(settings: DataSettings, root: Path) -> Found:
    """images/<split>/ID.* with masks/<split>/<class>/ID.png, or masks/<class>/<split>/ID.png."""
    place = annotation_path(settings, root, ("masks", "labels"))
    files = _lossless(place)
    folders = {part for stem in files for part in Path(stem).parts[:-1] if not split_named(part)}
    classes = tuple(settings.classes or ["background", *sorted(folders)])
    numbers = {name: number for number, name in enumerate(classes)}
    by_image: dict[str, list[tuple[int, Path]]] = {}
    for stem, path in files.items():
        parts = Path(stem).parts
        name = next((part for part in parts[:-1] if not split_named(part)), "")
        if name not in numbers:
            raise DataError(
                f"masks in a folder of a class ({', '.join(classes[1:])}) in {place}",
                stem,
                "Move the file, or add the class to data.classes.",
            )
        rest = "/".join(part for part in parts if part != name)
        by_image.setdefault(rest, []).append((numbers[name], path))
    targets: dict[str, Any] = {
        stem: LabelMap(tuple(sorted(pairs)), len(classes), True) for stem, pairs in by_image.items()
    }
    return _found(root, place, classes, targets)


def _lossless(place: Path) -> Mapping[str, Path]:
    """Files of maps or masks below a folder.

    Raises:
        DataError: There are none.
    """
    found = files_by_stem(place, _LOSSLESS)
    if found:
        return found
    lossy = len(files_by_stem(place, _LOSSY))
    raise DataError(
        f"label maps or masks ({', '.join(_LOSSLESS)}) in {place}",
        f"{lossy} JPEG files, whose compression changes the classes of pixels" if lossy else "none",
        "Make them anew as .png." if lossy else "Correct data.root or data.annotations.",
    )


def _found(
    root: Path, place: Path, classes: tuple[str, ...], targets: Mapping[str, LabelMap]
) -> Found:
    base = next((root / n for n in ("images", "JPEGImages") if (root / n).is_dir()), root)
    images = files_by_stem(base, tuple(endings()))
    if base == root:
        images = {stem: path for stem, path in images.items() if place not in path.parents}
    found = Found(classes, {})
    if lonely := [stem for stem in targets if stem not in images]:
        raise DataError(
            f"an image for each label map, of the same name, in {base}",
            f"{len(lonely)} without one; the first: {lonely[0]}",
            "Name each map as its image, add the images, or remove the maps.",
        )
    for stem, path in images.items():
        if stem not in targets:
            found.told.append((WITHOUT_MAP, stem))
            continue
        for _, file in targets[stem].files:
            _check_size(path, file)
        split = next((k for part in Path(stem).parts[:-1] if (k := split_named(part))), TRAIN)
        found.splits.setdefault(split, []).append((path, targets[stem]))
    return found


def _check_size(path: Path, file: Path) -> None:
    image, label_map = header_of(path), header_of(file)
    if image is None or label_map is None:
        return  # told when they are read
    if (image.width, image.height) != (label_map.width, label_map.height):
        raise DataError(
            f"a label map of {image.width} × {image.height} pixels, as its image, at {file}",
            f"{label_map.width} × {label_map.height}",
            "Make the map anew at the size of the image.",
        )


def _names(root: Path) -> list[str]:
    for name in ("classes.json", "classes.txt"):
        path = root / name
        if not path.is_file():
            continue
        lines = read_lines(path)
        if name == "classes.txt":
            return [line.strip() for line in lines if line.strip()]
        try:
            values = json.loads("\n".join(lines))
            listed = values["classes"] if isinstance(values, dict) else values
            return [str(each) for each in listed]
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(
                f'a list of names, or {{"classes": [names]}}, in {path}',
                f"{type(error).__name__}: {error}",
                "Correct it, or set data.classes.",
            ) from error
    raise DataError(
        f"names of the classes in {root.absolute()} (classes.json or classes.txt)",
        "neither of these files",
        "Add classes.txt with a name a line in the order of their values, background first; or set "
        "data.classes.",
    )
