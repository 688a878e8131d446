"""How fast an epoch goes, and how much of it waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterator

from edgesearch.pretrain.loader import ViewLoader
from edgesearch.pretrain.method import Views


class EpochTimer:
    """Times an epoch from the moment it is begun or resumed to its last batch.

    Args:
        loader: Gives the batches.
        processes: How many train with as many images each.

    Attributes:
        images: Images handed out so far, in all processes.
        waited_s: Wall time in which there was no batch to train on.
    """

    def __init__(self, loader: ViewLoader, processes: int = 1) -> None:
        self.loader = loader
        self.processes = processes
        self.images = 0
        self.waited_s = 0.0
        self._begun = time.perf_counter()
        self._ended: float | None = None

    def batches(self, epoch: int, first_step: int) -> Iterator[Views]:
        """Hand on the loader's batches, and note how long each was waited for."""
        batches = self.loader.batches(epoch, first_step)
        while True:
            asked = time.perf_counter()
            views = next(batches, None)
            got = time.perf_counter()
            self.waited_s += got - asked
            if views is None:
                self._ended = got
                return
            self.images += len(views[0]) * self.processes
            yield views

    @property
    def duration_s(self) -> float:
        """Wall time so far."""
        return (self._ended or time.perf_counter()) - self._begun

    @property
    def images_per_s(self) -> float:
        """Images by wall time."""
        return self.images / self.duration_s

    @property
    def data_wait(self) -> float:
        """Share of the wall time that was waited for images, in [0, 1]."""
        return max(0.0, self.waited_s - self.loader.views_s) / self.duration_s

    @property
    def augmenting(self) -> float:
        """Share of the wall time in which this process made views, in [0, 1]."""
        return self.loader.views_s / self.duration_s
