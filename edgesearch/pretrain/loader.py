"""Batches of views for one epoch, from images in memory or from files."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence, Sized
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from edgesearch.data.image_set import ImageSet
from edgesearch.data.preprocess import Preprocess
from edgesearch.errors import DataError, TrainingError
from edgesearch.pretrain.batched_views import BatchedViews, to_device
from edgesearch.pretrain.method import Views
from edgesearch.pretrain.randomness import order_of_epoch
from edgesearch.pretrain.views import TorchvisionViews
from edgesearch.processes import distributed

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import AugmentationSettings, PretrainSettings

Sample = tuple[tuple[torch.Tensor, ...], bool]
"""The views of an image, and whether another one stood in for it."""
SUBSTITUTES = 10
ENDING_S = 30
"""How long a worker process lives on after SIGTERM: longer than a step."""
SHARE_OF_FREE_MEMORY = 0.25
"""Of a GPU's, that images may take which stay there."""


class Share(NamedTuple):
    """The part of each batch that one of several processes takes.

    Attributes:
        rank: Number of the process.
        processes: How many there are; they divide the batch.
    """

    rank: int = 0
    processes: int = 1

    def of(self, batch: np.ndarray) -> np.ndarray:
        """Its part of the numbers (N,) of a batch's images: N / processes one after another."""
        length = len(batch) // self.processes
        return batch[self.rank * length : (self.rank + 1) * length]


class ViewLoader:
    """Gives the same batches of an epoch, or the same share of them, whenever it is asked.

    Args:
        images: The images.
        batch_size: Images in each step, of all processes together.
        seed: Of the order.
        device: Where the views lie.
        share: The part of each batch that this process takes.

    Attributes:
        steps_per_epoch: Batches in an epoch.
        replaced: Unreadable images that others stood in for, in the present epoch so far.
        views_s: Seconds that this process itself spent on views, in the present epoch so far (on a
            GPU, on telling it to make them); 0 where worker processes make them.
    """

    def __init__(
        self, images: Sized, batch_size: int, seed: int, device: torch.device, share: Share
    ) -> None:
        self.count = len(images)
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.share = share
        self.steps_per_epoch = self.count // batch_size
        self.replaced = 0
        self.views_s = 0.0

    def batches(self, epoch: int, first_step: int) -> Iterator[Views]:
        """The batches of an epoch from `first_step` on: two views (N, C, R, R) each."""
        raise NotImplementedError

    def numbers(self, epoch: int, first_step: int) -> list[np.ndarray]:
        """The numbers of this process's images in each of these batches."""
        order = order_of_epoch(self.count, self.seed, epoch)
        batches = np.split(order[: self.steps_per_epoch * self.batch_size], self.steps_per_epoch)
        return [self.share.of(batch) for batch in batches[first_step:]]


class BatchedViewLoader(ViewLoader):
    """Views computed batch by batch on a device, from images that lie in memory.

    The images are moved to the device once if they leave most of its memory free; otherwise each
    batch is.
    """

    def __init__(
        self,
        images: torch.Tensor,
        views: BatchedViews,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        share: Share = Share(),  # noqa: B008 (a tuple)
    ) -> None:
        super().__init__(images, batch_size, seed, torch.device(device), share)
        self.images = images.to(self.device) if _fits(images, self.device) else images
        self.views = views

    def batches(self, epoch: int, first_step: int) -> Iterator[Views]:
        """See `ViewLoader`."""
        self.views_s = 0.0
        for numbers in self.numbers(epoch, first_step):
            chosen = torch.from_numpy(numbers)
            images = self.images[to_device(chosen, self.images.device)]
            images = to_device(images, self.device)
            begun = time.perf_counter()
            views = self.views(images, chosen, epoch)
            self.views_s += time.perf_counter() - begun
            yield views


def _fits(images: torch.Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= free * SHARE_OF_FREE_MEMORY


class _ViewDataset(Dataset["Sample | DataError"]):
    """Views of the image of a number; an unreadable image is replaced by the next readable one."""

    def __init__(self, images: ImageSet, views: TorchvisionViews, epoch: int) -> None:
        self.images = images
        self.views = views
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample | DataError:
        error: DataError | None = None
        for attempt in range(SUBSTITUTES):
            try:
                image = self.images.load((index + attempt) % len(self.images))
            except DataError as unreadable:
                error = error or unreadable
                continue
            return self.views(image, index, self.epoch), attempt > 0
        assert error is not None
        return error  # a worker process can hand an error over, but not raise it here


def _collate(samples: list[Sample | DataError]) -> tuple[Views, int] | DataError:
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        good.append(sample)
    first, second = (torch.stack(views) for views in zip(*(v for v, _ in good), strict=True))
    return (first, second), sum(replaced for _, replaced in good)


def _leave_signals_to_the_trainer(worker: int) -> None:
    """A signal to all processes of a group: a worker that died of it would end the step.

    Ctrl-C on a terminal is one, and SIGTERM from torchrun and from schedulers of jobs. A worker
    that is told to end, and whose trainer does not, ends on its own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later if hasattr(signal, "alarm") else signal.SIG_DFL)


def _end_later(number: int, frame: object) -> None:
    signal.alarm(ENDING_S)


class WorkerViewLoader(ViewLoader):
    """Views computed by worker processes, image by image, as the files are read."""

    def __init__(
        self,
        images: ImageSet,
        views: TorchvisionViews,
        batch_size: int,
        seed: int,
        workers: int,
        device: torch.device | str = "cpu",
        share: Share = Share(),  # noqa: B008 (a tuple)
    ) -> None:
        super().__init__(images, batch_size, seed, torch.device(device), share)
        self.images = images
        self.views = views
        self.workers = workers

    def batches(self, epoch: int, first_step: int) -> Iterator[Views]:
        """See `ViewLoader`."""
        self.replaced = 0
        loader = DataLoader(
            _ViewDataset(self.images, self.views, epoch),
            batch_sampler=[numbers.tolist() for numbers in self.numbers(epoch, first_step)],
            num_workers=self.workers,
            collate_fn=_collate,
            worker_init_fn=_leave_signals_to_the_trainer,
            pin_memory=self.device.type == "cuda",  # by a thread of its own
        )
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            views, replaced = batch
            self.replaced += replaced
            first, second = (to_device(view, self.device) for view in views)
            yield first, second


def dead_worker(error: RuntimeError) -> TrainingError | None:
    """The error to raise when a process that loads images has died.

    torch raises its own wherever the main process is when it hears of the death, also within a
    training step.

    Args:
        error: What torch raised; None is returned if it tells of something else.
    """
    if not distributed.is_of_a_worker(error):
        return None
    return TrainingError(
        "processes that load images (pretrain.workers) and live as long as an epoch",
        " ".join(str(error).split()),
        "The system ends processes when memory runs out: set fewer pretrain.workers or a smaller "
        "pretrain.batch_size (in a container, more shared memory). The last good state has been "
        "kept: run the same command again to go on.",
    )


def make_loader(
    images: ImageSet,
    augmentations: Sequence[AugmentationSettings],
    preprocess: Preprocess,
    settings: PretrainSettings,
    seed: int,
    device: torch.device | str = "cpu",
) -> ViewLoader:
    """The loader of this process for a set of images.

    Args:
        images: The images.
        augmentations: How the first and the second view are made.
        preprocess: Resolution and normalisation.
        settings: Size of the batches, and who makes the views.
        seed: Of order and views.
        device: Where the views lie, and where whole batches are augmented.

    Raises:
        DataError: There are fewer images than a batch holds, or those that are to be augmented in
            batches are of several sizes or too many.
    """
    size, share = settings.batch_size, Share(distributed.rank(), distributed.world_size())
    if len(images) < size:
        raise DataError(
            f"at least one batch of {size} images for training",
            f"{len(images)} images",
            "Add images, or set a smaller pretrain.batch_size.",
        )
    if settings.augmentation.batched:
        batched = BatchedViews(augmentations, preprocess, seed)
        return BatchedViewLoader(images.stack(), batched, size, seed, device, share)
    views = TorchvisionViews(augmentations, preprocess, seed)
    return WorkerViewLoader(images, views, size, seed, settings.workers, device, share)
