"""The interface of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from edgesearch.data.preprocess import Preprocess
from edgesearch.tasks.known_tasks import TASKS, TaskRecord
from edgesearch.tasks.model import Head
from edgesearch.training.randomness import seed_of

if TYPE_CHECKING:
    from edgesearch.tasks.settings import FinetuneSettings

_SAMPLE = 0x5A


class Task:
    """What images and labels mean to a task: samples, losses, predictions and figures.

    Args:
        settings: The section `finetune`.
        classes: Names of the classes.
        preprocess: How an image becomes the network's input.
        seed: Seed of random changes.
    """

    name: ClassVar[str]

    def __init__(
        self,
        settings: FinetuneSettings,
        classes: Sequence[str],
        preprocess: Preprocess,
        seed: int,
    ) -> None:
        self.settings = settings
        self.classes = tuple(classes)
        self.preprocess = preprocess
        self.seed = seed

    @property
    def record(self) -> TaskRecord:
        """The task's entry in the list."""
        return TASKS[self.name]

    def configure(self, head: Head) -> None:
        """Give a head the options of the task."""

    def changed(
        self, image: torch.Tensor, target: Any, index: int, epoch: int
    ) -> tuple[torch.Tensor, Any]:
        """A training sample: the image (C, H, W) uint8 as (C, R, R) uint8, and its target.

        Seed, epoch and index determine it.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, epoch, index, _SAMPLE))
            return self._changed(image, target)

    def _changed(self, image: torch.Tensor, target: Any) -> tuple[torch.Tensor, Any]:
        raise NotImplementedError

    def fitted(self, image: torch.Tensor, target: Any) -> tuple[torch.Tensor, Any]:
        """A sample without random changes, as `changed`."""
        raise NotImplementedError

    def collate(self, targets: Sequence[Any], device: torch.device) -> Any:
        """Targets of a batch, for `Head.loss`."""
        raise NotImplementedError

    def imitation(self, raw: Any, teacher_raw: Any) -> torch.Tensor:
        """How far a network's raw outputs are from those of a teacher; see `Head.raw`."""
        raise NotImplementedError

    def predictions(self, outputs: Sequence[np.ndarray]) -> list[Any]:
        """What the outputs (N, …) of a network or an engine say of each image."""
        raise NotImplementedError

    def figures(self, predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        """Figures in 0 … 1 by name, `record.metric` first; targets as `fitted` gives them."""
        raise NotImplementedError
