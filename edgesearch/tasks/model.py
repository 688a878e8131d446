"""A whole network: a backbone and the head of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from edgesearch.tasks.backbone import Backbone, MapShapes
from edgesearch.tasks.known_tasks import TASKS
from edgesearch.training.randomness import seeded


class Head(nn.Module):
    """The part of a network that belongs to a task.

    Args:
        shapes: Of the maps that it gets.
        classes: Number of classes, without background.

    Attributes:
        dense: Whether it reads the maps of stages; else the features of the whole backbone.
        output_names: Names of its outputs.
    """

    dense: ClassVar[bool] = True
    output_names: ClassVar[tuple[str, ...]]

    def __init__(self, shapes: MapShapes, classes: int) -> None:
        super().__init__()
        self.shapes = shapes
        self.classes = classes

    @classmethod
    def last_map(cls, shapes: MapShapes) -> int:
        """Number of the last map that it reads; the backbone ends there."""
        return len(shapes.sizes) - 1

    def raw(self, maps: list[torch.Tensor]) -> Any:
        """What loss and outputs are computed from."""
        raise NotImplementedError

    def loss(self, raw: Any, targets: Any) -> torch.Tensor:
        """The loss of a batch; targets as `Task.collate` gives them."""
        raise NotImplementedError

    def outputs(self, raw: Any) -> tuple[torch.Tensor, ...]:
        """The outputs (N, …) of the exported network, in the order of `output_names`."""
        raise NotImplementedError


class TaskModel(nn.Module):
    """Images (N, C, R, R), normalised, to the outputs of the head.

    An ordinary module: `export_network(model, path, input_shape=…,
    output_names=model.output_names)` writes its ONNX file.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        backbone.end_at(head.last_map(backbone.shapes))

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return list(self.head.output_names)

    @property
    def resolution(self) -> int:
        """Height and width of the images."""
        return self.backbone.shapes.resolution

    def raw(self, images: torch.Tensor) -> Any:
        """See `Head.raw`."""
        return self.head.raw(self.backbone(images))

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The only output, or all of them."""
        outputs = self.head.outputs(self.raw(images))
        return outputs[0] if len(outputs) == 1 else outputs


class HeadAlone(nn.Module):
    """A head as a function of maps (N, C, H, W), as a `TaskModel` calls it."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, *maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All outputs."""
        return self.head.outputs(self.head.raw(list(maps)))


def outputs_of(model: nn.Module, images: torch.Tensor) -> Sequence[torch.Tensor]:
    """The outputs as a sequence, however many there are."""
    found = model(images)
    return (found,) if isinstance(found, torch.Tensor) else found


def add_head(task: str, head: str, backbone: Backbone, classes: int, seed: int) -> TaskModel:
    """A whole network with a head whose initial weights come from `seed`."""
    kind = TASKS[task].head_class(head)
    with seeded(seed):
        return TaskModel(backbone, kind(backbone.shapes, classes))
