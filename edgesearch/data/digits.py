"""scikit-learn's handwritten digits, which need no download."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import torch

from edgesearch.data.image_set import ImageSet
from edgesearch.data.settings import DataSettings
from edgesearch.data.splits import ImageSplits


def open_digits(
    settings: DataSettings, root: Path, channels: int, is_output: Callable[[Path], bool]
) -> ImageSplits:
    """1,797 digits of 8×8 pixels in ten classes, without splits."""
    # Importing scikit-learn takes ten times as long as reading its file.
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    rows = torch.from_numpy(np.loadtxt(str(file), delimiter=","))
    pixels = (rows[:, :-1] * (255 / 16)).round().to(torch.uint8).view(-1, 8, 8)
    labels = rows[:, -1].long()
    return ImageSplits(
        ImageSet(
            items=pixels[:, None].repeat(1, channels, 1, 1).unbind(),
            channels=channels,
            origin=Path("digits"),
            labels=labels,
            class_names=tuple(map(str, labels.unique().tolist())),
        ),
        colour=False,
    )
