"""Training and test splits of images."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

import torch

from edgesearch.data.image_set import ImageSet
from edgesearch.errors import DataError

TRAIN = "train"
TESTS = ("val", "validation", "test")
"""Names of the test split in folders and shards, in order of preference."""


@dataclass(frozen=True)
class ImageSplits:
    """The images of a source; `labelled`: reference images of classifiers, if not `train`."""

    train: ImageSet
    test: ImageSet | None = None
    labelled: ImageSet | None = None


def name_of_test_split(names: Container[str]) -> str | None:
    """The name of the test split; None if it or `train` is missing."""
    return next((name for name in TESTS if name in names), None) if TRAIN in names else None


def with_classes_of(train: ImageSet, test: ImageSet) -> ImageSplits:
    """Both splits, test labels as indices into training classes; DataError for other classes."""
    if test.labels is None or train.labels is None:
        return ImageSplits(train, replace(test, labels=None, class_names=()))
    unknown = [name for name in test.class_names if name not in train.class_names]
    if unknown:
        raise DataError(
            f"the classes of {test.origin.absolute()} among those of {train.origin.absolute()}",
            f"{len(unknown)} other(s): {', '.join(unknown[:5])}",
            "Give both splits the same class folders.",
        )
    indices = torch.tensor([train.class_names.index(name) for name in test.class_names])
    labels = indices[test.labels]
    return ImageSplits(train, replace(test, labels=labels, class_names=train.class_names))


def hold_out(images: ImageSet, share: float, seed: int) -> ImageSplits:
    """Split off the same share of each class as test split, but never a whole class."""
    if images.labels is None:
        return ImageSplits(images)
    generator = torch.Generator().manual_seed(seed)
    test: set[int] = set()
    for label in range(len(images.class_names)):
        members = (images.labels == label).nonzero().flatten()
        count = min(round(len(members) * share), len(members) - 1)
        chosen = torch.randperm(len(members), generator=generator)[:count]
        test.update(members[chosen].tolist())
    train = [index for index in range(len(images)) if index not in test]
    return ImageSplits(images.subset(train), images.subset(sorted(test)) if test else None)
