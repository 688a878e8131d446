"""The interface of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from edgesearch.data.preprocess import Preprocess
from edgesearch.tasks.known_tasks import TASKS, TaskRecord
from edgesearch.tasks.model import Head
from edgesearch.training.randomness import seed_of, seeded

if TYPE_CHECKING:
    import onnx

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
        with seeded(seed_of(self.seed, epoch, index, _SAMPLE)):
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


@dataclass(frozen=True)
class Match:
    """How predictions of an exported network agree with those of the trained one.

    Attributes:
        count: Predictions; where the two have different numbers, the larger one.
        same: Those that both have.
        max_difference: Largest difference of a value among these.
    """

    count: int
    same: int
    max_difference: float


class InGraph(ABC):
    """The post-processing of a task as part of an ONNX graph.

    Attributes:
        stem: Names of files with it begin so, others with "subnet".
        output_names: Outputs of such a graph.
    """

    stem: ClassVar[str]
    output_names: ClassVar[tuple[str, ...]]

    @abstractmethod
    def alone(self, shapes: Mapping[str, Sequence[int | str]]) -> onnx.ModelProto:
        """The post-processing as a model of its own, for a network's outputs of these shapes.

        Its inputs are called "all_NAME"; a dynamic batch is given by its name.
        """

    @abstractmethod
    def joined(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A network's model, in any precision, that ends with the post-processing in fp32."""

    @abstractmethod
    def predictions(self, outputs: Sequence[np.ndarray]) -> list[Any]:
        """As `Task.predictions`, from the outputs (N, …) of such a graph."""

    @abstractmethod
    def match(self, expected: Sequence[Any], found: Sequence[Any], tolerance: float) -> Match:
        """Compare predictions, whose values may differ by the tolerance."""
