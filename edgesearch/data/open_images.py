"""Opening the images that a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgesearch.data.digits import open_digits
from edgesearch.data.folder import open_folder
from edgesearch.data.settings import DataSettings
from edgesearch.data.shards import open_shards
from edgesearch.data.splits import ImageSplits, hold_out
from edgesearch.data.torchvision_sets import open_torchvision

SOURCES: dict[str, Callable[[DataSettings, Path, int], ImageSplits]] = {
    "folder": open_folder,
    "shards": open_shards,
    "torchvision": open_torchvision,
    "digits": open_digits,
}
"""Opens each `data.source`, given the settings, their root and the number of channels."""


def open_images(settings: DataSettings, channels: int, seed: int = 0) -> ImageSplits:
    """Open the images with 1 or 3 channels; without splits, hold out a seeded test share.

    Raises:
        DataError: The source is missing, damaged or without images, or the test split has classes
            that the training split lacks.
    """
    splits = SOURCES[settings.source](settings, settings.root or Path(), channels)
    return splits if splits.test is not None else hold_out(splits.train, settings.holdout, seed)
