"""The labelled images of a task: shares, samples and batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from edgesearch.data.boxes import Boxes
from edgesearch.data.image_set import ImageSet
from edgesearch.data.label_maps import IGNORED, LabelMap
from edgesearch.errors import DataError, TrainingError
from edgesearch.processes import distributed
from edgesearch.tasks.task import Task
from edgesearch.training.randomness import order_of_epoch

Batch = tuple[torch.Tensor, list[Any]]
"""Images (N, C, R, R) uint8, and the target of each."""


@dataclass(frozen=True)
class TaskImages:
    """Images with targets for training, for choosing an epoch, and for the result.

    Attributes:
        validation: Held out of the training images; None without `finetune.validation`.
        notices: What the user should know about their numbers.
    """

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet
    notices: tuple[str, ...] = ()


def share_out(
    train: ImageSet, test: ImageSet, label_share: float, validation: float, seed: int
) -> TaskImages:
    """Draw a share of the training images, and hold out a share of these, for each class.

    Raises:
        TrainingError: Fewer than two images are left.
        DataError: A class has no training images, or a label map is wrong.
    """
    groups = _groups(train)
    generator = torch.Generator().manual_seed(seed)
    kept: list[int] = []
    held_out: list[int] = []
    for members in groups:
        order = [members[i] for i in torch.randperm(len(members), generator=generator).tolist()]
        chosen = order[: max(1, round(label_share * len(members)))]
        aside = min(round(validation * len(chosen)), len(chosen) - 1)
        held_out += chosen[:aside]
        kept += chosen[aside:]
    if len(kept) < 2 or (validation and not held_out):
        raise TrainingError(
            "two or more training images, and one or more to choose an epoch on"
            if validation
            else "two or more training images",
            f"{len(kept)} and {len(held_out)}" if validation else str(len(kept)),
            "Add labels, or set a larger finetune.label_share or finetune.validation.",
        )
    return TaskImages(
        train.subset(sorted(kept)),
        train.subset(sorted(held_out)) if held_out else None,
        test,
        (*_check_classes(train, test), *_imbalance(train)),
    )


def _check_classes(train: ImageSet, test: ImageSet) -> Iterator[str]:
    """Tell of classes without test images.

    Raises:
        DataError: A class has no training images, or a label map is wrong.
    """
    learnt, judged = (
        set().union(*(_classes_in(part, n) for n in range(len(part)))) for part in (train, test)
    )
    names = train.class_names
    if len(names) < 2 and train.annotations_kind != Boxes.kind:
        raise DataError(
            f"two classes or more to tell apart in {train.origin.absolute()}",
            ", ".join(names) or "none",
            "Add images of another class, or correct data.classes.",
        )
    if missing := [name for number, name in enumerate(names) if number not in learnt]:
        raise DataError(
            f"training images of each class in {train.origin.absolute()}",
            f"none of {', '.join(missing[:5])}",
            _WHITE_MASKS
            if _are_white_masks(train)
            else "Add some, or leave the class out (data.classes, or the names in the files).",
        )
    if missing := [name for number, name in enumerate(names) if number not in judged]:
        yield f"no test images of {', '.join(missing[:5])}: the figures say nothing of them"


_WHITE_MASKS = (
    f"The value {IGNORED} means no class: save the maps with 0 and 1, or put them into a folder "
    "for each class and set data.labels=masks."
)


def _are_white_masks(images: ImageSet) -> bool:
    """Whether all maps are black and white."""
    maps = [each for each in images.targets or () if isinstance(each, LabelMap) and not each.masks]
    return bool(maps) and set().union(*(each.values() for each in maps)) <= {0, IGNORED}


def _classes_in(images: ImageSet, index: int) -> set[int]:
    target = images.target(index)
    if isinstance(target, Boxes):
        return set(target.labels[~target.ignored].tolist())
    if isinstance(target, LabelMap):
        height, width = images.load(index).shape[1:]
        return set(np.unique(target.load(height, width)).tolist()) - {IGNORED}
    return {target} if isinstance(target, int) else set()


def _groups(images: ImageSet) -> list[list[int]]:
    """Indices of each class; of all images if they have no class."""
    if images.labels is None:
        return [list(range(len(images)))]
    numbers = range(len(images.class_names))
    groups = ((images.labels == n).nonzero().flatten().tolist() for n in numbers)
    return [group for group in groups if group]


def _imbalance(train: ImageSet) -> Iterator[str]:
    if train.labels is None:
        return
    counts = {train.class_names[int(train.labels[g[0]])]: len(g) for g in _groups(train)}
    if max(counts.values()) >= 3 * min(counts.values()):
        fewest, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        yield (
            f"classes are unequal: {counts[fewest]:,} training images of {fewest}, "
            f"{counts[most]:,} of {most}; read the mean over classes beside the accuracy"
        )


class _Changed(Dataset[tuple[torch.Tensor, Any]]):
    """Samples of an epoch by image index."""

    def __init__(self, images: ImageSet, task: Task, epoch: int) -> None:
        self.images, self.task, self.epoch = images, task, epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        image, target = self.images.load(index), self.images.target(index)
        return self.task.changed(image, target, index, self.epoch)


class SampleLoader:
    """This process's share of the batches of an epoch, always in the same order.

    Incomplete batches are dropped; fewer images than a batch are one batch.
    """

    def __init__(
        self, images: ImageSet, task: Task, batch_size: int, seed: int, workers: int
    ) -> None:
        processes = distributed.world_size()
        self.images, self.task, self.seed, self.workers = images, task, seed, workers
        self.batch_size = min(batch_size, len(images) // processes * processes)
        if batch_size % processes or self.batch_size < 2 * processes:
            raise TrainingError(
                f"a finetune.batch_size that {processes} processes divide, and two images for each",
                f"{batch_size} and {len(images)} images",
                "Set another finetune.batch_size or number of processes, or add labels.",
            )
        self.steps_per_epoch = len(images) // self.batch_size

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on."""
        loader = DataLoader(
            _Changed(self.images, self.task, epoch),
            batch_sampler=[part.tolist() for part in self._numbers(epoch)[first_step:]],
            num_workers=self.workers,
            collate_fn=_collate,
        )
        yield from loader

    def _numbers(self, epoch: int) -> list[np.ndarray]:
        order = order_of_epoch(len(self.images), self.seed, epoch)
        whole = order[: self.steps_per_epoch * self.batch_size]
        length = self.batch_size // distributed.world_size()
        own = slice(distributed.rank() * length, (distributed.rank() + 1) * length)
        return [batch[own] for batch in np.split(whole, self.steps_per_epoch)]


def _collate(samples: Sequence[tuple[torch.Tensor, Any]]) -> Batch:
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), list(targets)


class FittedImages:
    """Images as inputs of networks of one resolution, with targets; made once.

    Attributes:
        images: (N, C, R, R) uint8.
        targets: As `Task.fitted` gives them.
    """

    def __init__(self, images: ImageSet, task: Task) -> None:
        self._images, self._task = images, task

    def __len__(self) -> int:
        return len(self._images)

    @cached_property
    def _fitted(self) -> Batch:
        pairs = (
            self._task.fitted(self._images.load(n), self._images.target(n))
            for n in range(len(self._images))
        )
        return _collate(list(pairs))

    @property
    def images(self) -> torch.Tensor:
        """See the class."""
        return self._fitted[0]

    @property
    def targets(self) -> list[Any]:
        """See the class."""
        return self._fitted[1]
