"""Opens the images that a configuration names."""

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
"""What opens each `data.source`: a function of the settings, their root and the channels."""


def open_images(settings: DataSettings, channels: int, seed: int = 0) -> ImageSplits:
    """Find the images, with the splits of the source; where it has none, a share is held out.

    Args:
        settings: Where the images are.
        channels: Channels that images are given with, 1 or 3.
        seed: Decides which images are held out.

    Raises:
        DataError: What the source needs is missing, damaged or without images, or the test split
            has classes that the training split lacks.
    """
    splits = SOURCES[settings.source](settings, settings.root or Path(), channels)
    return splits if splits.test is not None else hold_out(splits.train, settings.holdout, seed)
