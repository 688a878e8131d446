"""Which labels lie beside the images of a folder, by the usual places of their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgesearch.data.annotated import split_named

MAPS = (".png", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class LabelLayout:
    """A value of `data.labels`.

    Attributes:
        words: What it is.
        places: Where its files are, for people.
        is_in: Whether such files are below a folder.
    """

    words: str
    places: str
    is_in: Callable[[Path], bool]


def _any(*patterns: str) -> Callable[[Path], bool]:
    return lambda root: any(True for pattern in patterns for _ in root.glob(pattern))


def _has_maps(of_classes: bool) -> Callable[[Path], bool]:
    """Whether there are label maps, in folders of classes or not."""

    def is_in(root: Path) -> bool:
        for name in ("labels", "masks", "annotations", "SegmentationClass"):
            place = root / name
            for path in place.rglob("*"):
                if path.suffix.lower() in MAPS:
                    folders = path.relative_to(place).parts[:-1]
                    return any(not split_named(part) for part in folders) == of_classes
        return False

    return is_in


LAYOUTS: Mapping[str, LabelLayout] = {
    "csv": LabelLayout(
        "a list of paths and labels", "labels.csv or train.csv", _any("labels.csv", "train.csv")
    ),
    "voc": LabelLayout(
        "boxes as in Pascal VOC",
        "Annotations/*.xml, or *.xml beside the images",
        _any("Annotations/*.xml", "annotations/*.xml", "*.xml", "*/*.xml"),
    ),
    "coco": LabelLayout(
        "boxes as in COCO",
        "annotations/*.json, coco/*.json, or _annotations.coco.json beside the images",
        _any(
            *("annotations/*.json", "coco/*.json"),
            *("_annotations.coco.json", "*/_annotations.coco.json"),
        ),
    ),
    "yolo": LabelLayout(
        "boxes as in YOLO",
        "labels/*.txt beside images/",
        _any("labels/*.txt", "labels/*/*.txt", "*/labels/*.txt"),
    ),
    "maps": LabelLayout(
        "label maps", "labels/ or masks/ with a map for each of images/", _has_maps(False)
    ),
    "masks": LabelLayout("a mask for each class", "masks/CLASS/", _has_maps(True)),
}
"""By name, the usual ones first."""
OF_TASK = {
    "classification": ("csv",),
    "detection": ("voc", "coco", "yolo"),
    "segmentation": ("maps", "masks"),
}
"""Those that a task can learn from; classification from class folders, too."""


def layouts_in(root: Path, task: str) -> tuple[str, ...]:
    """The layouts of a task whose files are in a folder."""
    return tuple(name for name in OF_TASK[task] if LAYOUTS[name].is_in(root))


def images_beside_maps(root: Path) -> Path | None:
    """The folder of images beside label maps, which are no images to learn from."""
    folders = [root / name for name in ("images", "JPEGImages") if (root / name).is_dir()]
    return folders[0] if folders and layouts_in(root, "segmentation") else None
