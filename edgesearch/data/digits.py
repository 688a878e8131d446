"""scikit-learn's handwritten digits, which need no download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from edgesearch.data.image_set import ImageSet
from edgesearch.data.settings import DataSettings
from edgesearch.data.splits import ImageSplits


def open_digits(
    settings: DataSettings, root: Path, channels: int, is_output: Callable[[Path], bool]
) -> ImageSplits:
    """1,797 digits of 8×8 pixels in ten classes, without splits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)
    return ImageSplits(
        ImageSet(
            items=pixels[:, None].repeat(1, channels, 1, 1).unbind(),
            channels=channels,
            origin=Path("digits"),
            labels=torch.from_numpy(digits.target).long(),
            class_names=tuple(map(str, digits.target_names)),
        ),
        colour=False,
    )
