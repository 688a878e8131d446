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

IsOutput = Callable[[Path], bool]
"""Whether a folder is the output of a run."""
SOURCES: dict[str, Callable[[DataSettings, Path, int, IsOutput], ImageSplits]] = {
    "folder": open_folder,
    "shards": open_shards,
    "torchvision": open_torchvision,
    "digits": open_digits,
}
"""Opens each `data.source`, given the settings, their root and the number of channels."""


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
    splits = SOURCES[settings.source](settings, root, channels, is_output)
    return splits if splits.test is not None else hold_out(splits, settings.holdout, seed)
