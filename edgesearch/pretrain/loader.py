"""Batches of augmented views for one epoch, from images in memory or in files."""

from __future__ import annotations

import errno
import multiprocessing.queues
import shutil
import signal
import time
from collections.abc import Iterator, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from edgesearch.data.image_set import ImageSet
from edgesearch.data.preprocess import Preprocess
from edgesearch.errors import DataError, TrainingError
from edgesearch.pretrain.batched_views import BatchedViews, to_device
from edgesearch.pretrain.method import Views
from edgesearch.pretrain.taught_views import BatchedTaughtViews, TaughtViews, Teaching
from edgesearch.pretrain.views import TorchvisionViews
from edgesearch.processes import distributed
from edgesearch.training.randomness import order_of_epoch

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import AugmentationSettings, PretrainSettings

Sample = tuple[tuple[torch.Tensor, ...], bool]
"""The views of an image, and whether a substitute replaced it."""
SUBSTITUTES = 10
PREFETCHED = 2
"""Batches that each worker process prepares in advance; torch's default."""
SHARED_MEMORY = Path("/dev/shm")
CONTINUE = "The last good state has been kept: run the same command again to continue."
ENDING_S = 30
"""Lifetime of a worker process after SIGTERM: longer than a step."""


class WorkersError(TrainingError):
    """Worker processes have died, or cannot hand over what they load."""


class ViewLoader:
    """Yields this process's share of the batches of an epoch, always in the same order.

    Attributes:
        replaced: Unreadable images replaced by others so far in this epoch.
        views_s: Seconds that this process has spent on views so far in this epoch (on a GPU, on
            launching the kernels); 0 if worker processes make them.
    """

    def __init__(
        self, images: Sized, batch_size: int, seed: int, device: torch.device | str
    ) -> None:
        self.count = len(images)
        self.batch_size = batch_size
        self.seed = seed
        self.device = torch.device(device)
        self.rank, self.processes = distributed.rank(), distributed.world_size()
        self.steps_per_epoch = self.count // batch_size
        self.replaced = 0
        self.views_s = 0.0

    def batches(self, epoch: int, first_step: int) -> Iterator[Views]:
        """The batches of an epoch from `first_step` on: their views."""
        raise NotImplementedError

    def numbers(self, epoch: int, first_step: int) -> list[np.ndarray]:
        """Indices of this process's images in each of these batches."""
        order = order_of_epoch(self.count, self.seed, epoch)
        batches = np.split(order[: self.steps_per_epoch * self.batch_size], self.steps_per_epoch)
        length = self.batch_size // self.processes
        own = slice(self.rank * length, (self.rank + 1) * length)
        return [batch[own] for batch in batches[first_step:]]


class BatchedViewLoader(ViewLoader):
    """Computes views batch by batch on a device, from images in memory.

    The images are moved to the device once if they take at most a quarter of its free memory,
    otherwise batch by batch.
    """

    def __init__(
        self,
        images: torch.Tensor,
        views: BatchedViews,
        batch_size: int,
        seed: int,
        device: torch.device | str,
    ) -> None:
        super().__init__(images, batch_size, seed, device)
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
    return images.nbytes <= free / 4


class _ViewDataset(Dataset["Sample | DataError"]):
    """Views by image index; the next readable image replaces an unreadable one."""

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
            found = (index + attempt) % len(self.images)
            return self.views(image, found, self.epoch), attempt > 0
        assert error is not None
        return error  # worker processes must return it, not raise it


def _collate(samples: list[Sample | DataError]) -> tuple[Views, int] | DataError:
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        good.append(sample)
    views = tuple(torch.stack(each) for each in zip(*(v for v, _ in good), strict=True))
    return views, sum(replaced for _, replaced in good)


def _prepare_worker(worker: int) -> None:
    """Ignore signals to the process group: a worker's death would abort the step.

    Such signals are Ctrl-C on a terminal, and SIGTERM from torchrun and job schedulers. After
    SIGTERM a worker whose trainer lives on ends by itself later.

    A batch that cannot be sent is replaced by an error: the trainer would wait for it for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later if hasattr(signal, "alarm") else signal.SIG_DFL)
    multiprocessing.queues.Queue._on_queue_feeder_error = _send_error  # type: ignore[attr-defined]


def _send_error(
    queue: multiprocessing.queues.Queue[Any], error: Exception, job: tuple[int, Any]
) -> None:
    """Send why a batch cannot be sent; called in a worker by the thread that sends them."""
    number, batch = job
    views = batch[0] if isinstance(batch, tuple) else ()
    workers = getattr(get_worker_info(), "num_workers", 1)
    queue.put((number, _not_sent(error, workers, sum(view.nbytes for view in views))))


def _not_sent(error: Exception, workers: int, batch_bytes: int = 0) -> WorkersError:
    """Why worker processes cannot start or send their batches."""
    found = " ".join(str(error).split())
    if "Too many open files" in found:
        lacking, remedy = "open files", "Raise their limit (ulimit -n 65535)"
    elif getattr(error, "errno", None) in (errno.EAGAIN, errno.ENOMEM):
        lacking, remedy = "processes and memory", "End others or raise the limits (ulimit -u)"
    else:
        lacking = "shared memory"
        if batch_bytes:
            lacking += f", about {workers * (PREFETCHED + 1) * batch_bytes / 1e6:,.1f} MB,"
        if SHARED_MEMORY.is_dir():
            space = shutil.disk_usage(SHARED_MEMORY)
            free, total = (f"{size / 1e6:,.1f} MB" for size in (space.free, space.total))
            found += f"; {free} of {total} are free in {SHARED_MEMORY}"
        remedy = "Enlarge it (docker run --shm-size=2g; mount -o remount,size=2g /dev/shm)"
    return WorkersError(
        f"enough {lacking} for {workers} worker processes (pretrain.workers)",
        found,
        f"{remedy}, or set fewer pretrain.workers (0 needs none), or, for a new run, "
        f"pretrain.augmentation.batched=true. {CONTINUE}",
    )


def _kill_workers() -> None:
    """Kill workers that have not ended by themselves: this process would wait for them at exit."""
    for child in multiprocessing.active_children():
        child.kill()


def _end_later(number: int, frame: object) -> None:
    signal.alarm(ENDING_S)


class WorkerViewLoader(ViewLoader):
    """Computes views image by image in worker processes that read the files."""

    def __init__(
        self,
        images: ImageSet,
        views: TorchvisionViews,
        batch_size: int,
        seed: int,
        workers: int,
        device: torch.device | str,
    ) -> None:
        super().__init__(images, batch_size, seed, device)
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
            worker_init_fn=_prepare_worker,
            prefetch_factor=PREFETCHED if self.workers else None,
            pin_memory=self.device.type == "cuda",  # by a thread of its own
        )
        try:
            ready = iter(loader)
        except OSError as error:  # of locks, which take shared memory, or of starting processes
            _kill_workers()
            raise _not_sent(error, self.workers) from error
        try:
            for batch in ready:
                if isinstance(batch, (DataError, WorkersError)):
                    raise batch
                views, replaced = batch
                self.replaced += replaced
                yield tuple(to_device(view, self.device) for view in views)
        finally:
            if self.workers:  # collecting it would do the same, but an error may keep it
                ready._shutdown_workers()  # type: ignore[attr-defined]
                _kill_workers()


def dead_worker(error: RuntimeError, workers: int) -> WorkersError | None:
    """The error to raise if torch reports that workers have died or are out of reach, else None.

    torch raises its error wherever the main process is at the time, even within a training step.
    """
    if not distributed.is_of_a_worker(error):
        return None
    if "Too many open files" in str(error):
        return _not_sent(error, workers)
    return WorkersError(
        "worker processes (pretrain.workers) that survive the epoch",
        " ".join(str(error).split()),
        "The system ends processes when memory runs out: set fewer pretrain.workers or a smaller "
        f"pretrain.batch_size (in a container, more shared memory). {CONTINUE}",
    )


def make_loader(
    images: ImageSet,
    augmentations: Sequence[AugmentationSettings],
    preprocess: Preprocess,
    settings: PretrainSettings,
    seed: int,
    device: torch.device | str = "cpu",
    teaching: Teaching | None = None,
) -> ViewLoader:
    """This process's loader; `augmentations` are those of the first and the second view.

    With a teacher, its embeddings come last; without a second augmentation, after the first view.

    Raises:
        DataError: There are fewer images than a batch, or images for batched augmentation differ
            in size or take too much memory.
    """
    size = settings.batch_size if settings.epochs else min(settings.batch_size, len(images))
    if len(images) < size:
        raise DataError(
            f"at least one batch of {size} images for training",
            f"{len(images)} images",
            "Add images, or set a smaller pretrain.batch_size.",
        )
    taught = None
    if teaching is not None:
        taught = augmentations, preprocess, seed, teaching.crops, teaching.cache
    if settings.augmentation.batched:
        batched = (
            BatchedTaughtViews(*taught) if taught else BatchedViews(augmentations, preprocess, seed)
        )
        return BatchedViewLoader(images.stack(), batched, size, seed, device)
    views = TaughtViews(*taught) if taught else TorchvisionViews(augmentations, preprocess, seed)
    return WorkerViewLoader(images, views, size, seed, settings.workers, device)
