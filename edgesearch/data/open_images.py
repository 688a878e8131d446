"""Opening the images that a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgesearch.data.annotated import Reader, open_annotated
from edgesearch.data.coco import read_coco
from edgesearch.data.csv_labels import read_csv
from edgesearch.data.digits import open_digits
from edgesearch.data.folder import open_folder
from edgesearch.data.label_maps import read_maps, read_masks
from edgesearch.data.settings import DataSettings
from edgesearch.data.shards import open_shards
from edgesearch.data.splits import ImageSplits, hold_out
from edgesearch.data.torchvision_sets import open_torchvision
from edgesearch.data.voc import read_voc
from edgesearch.data.yolo import read_yolo

IsOutput = Callable[[Path], bool]
"""Whether a folder is the output of a run."""
SOURCES: dict[str, Callable[[DataSettings, Path, int, IsOutput], ImageSplits]] = {
    "folder": open_folder,
    "shards": open_shards,
    "torchvision": open_torchvision,
    "digits": open_digits,
}
"""Opens each `data.source`, given the settings, their root and the number of channels."""
ANNOTATIONS: dict[str, Reader] = {
    "csv": read_csv,
    "coco": read_coco,
    "voc": read_voc,
    "yolo": read_yolo,
    "maps": read_maps,
    "masks": read_masks,
}
"""Reads each `data.labels` that stands in files."""


def nothing_is_output(folder: Path) -> bool:
    """Take no folder for the output of a run."""
    return False


def open_images(
    settings: DataSettings, channels: int, seed: int = 0, is_output: IsOutput = nothing_is_output
) -> ImageSplits:
    """Open the images with 1 or 3 channels; without test images, hold out a seeded share.

    Args:
        settings: The source.
        channels: 1 or 3.
        seed: Seed of the share held out.
        is_output: Whether a folder is the output of a run, which is never read.

    Raises:
        DataError: The source is missing, damaged or without images, a class or split has none that
            can be read, or the test split has classes that the training split lacks.
    """
    root = settings.root or Path()
    if settings.source == "folder" and settings.labels in ANNOTATIONS:
        read = ANNOTATIONS[settings.labels]
        splits = open_annotated(settings, root, channels, is_output, read)
    else:
        splits = SOURCES[settings.source](settings, root, channels, is_output)
    return splits if splits.test is not None else hold_out(splits, settings.holdout, seed)
