"""The split to train on and the one to evaluate on, and the names that tell them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgesearch.data.image_set import ImageSet
from edgesearch.errors import DataError

TEST_FOLDERS = ("val", "validation", "test")
"""Names of what lies beside `train` and holds the test split; the first present one counts."""


@dataclass(frozen=True)
class ImageSplits:
    """Images to train on, and others to evaluate on.

    Attributes:
        train: Images to train on.
        test: Images to evaluate on, or None if there are none.
        labelled: Images whose labels others are classified by, if not those to train on.
    """

    train: ImageSet
    test: ImageSet | None
    labelled: ImageSet | None = None


def relabelled(test: ImageSet, train: ImageSet) -> ImageSet:
    """The test split with labels that are indices into the classes of the training split."""
    if test.labels is None or train.labels is None:
        return ImageSet(test.items, test.channels, test.origin)
    unknown = [name for name in test.class_names if name not in train.class_names]
    if unknown:
        raise DataError(
            f"the classes of {test.origin.absolute()} among those of {train.origin.absolute()}",
            f"{len(unknown)} other(s): {', '.join(unknown[:5])}",
            "Give both splits the same class folders.",
        )
    indices = torch.tensor([train.class_names.index(name) for name in test.class_names])
    return ImageSet(test.items, test.channels, test.origin, indices[test.labels], train.class_names)


def held_out(images: ImageSet, share: float, seed: int) -> ImageSplits:
    """Split off the same share of each class, but never all of it."""
    if images.labels is None:
        return ImageSplits(images, None)
    generator = torch.Generator().manual_seed(seed)
    test: list[int] = []
    for label in range(len(images.class_names)):
        members = (images.labels == label).nonzero().flatten()
        count = min(round(len(members) * share), len(members) - 1)
        chosen = torch.randperm(len(members), generator=generator)[:count]
        test += members[chosen].tolist()
    held = set(test)
    train = [index for index in range(len(images)) if index not in held]
    return ImageSplits(images.subset(train), images.subset(sorted(test)) if test else None)
