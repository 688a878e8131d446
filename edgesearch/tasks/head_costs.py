"""What the head of a task computes, for every architecture of a space.

Each layer of a head reads one map of the backbone, or what was made of one, so that the costs of a
head are sums over maps. A head is built once for every number of channels that a map may have, not
for every architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesearch.space import Architecture, Block, SearchSpace
from edgesearch.tasks.known_tasks import TASKS

if TYPE_CHECKING:
    from edgesearch.tasks.backbone import MapShapes

FEATURES = ("macs", "values")
"""What is counted for an image: multiply-accumulates of convolutions and linear layers; and the
numbers that these layers and the head as a whole read and write."""


@dataclass(frozen=True)
class TaskHead:
    """The head of a task, with everything that its latency depends on besides the backbone.

    Attributes:
        task: Name of the task.
        head: Name of the head.
        classes: Number of classes, without background.
    """

    task: str
    head: str
    classes: int

    def __str__(self) -> str:
        return f"head {self.head} for {self.classes} class{'es' * (self.classes != 1)}"

    @property
    def key(self) -> str:
        """Its part of keys in a latency table."""
        return f"{self.head}-{self.classes}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


class HeadCosts:
    """Costs of a head on the architectures of a space; imports torch.

    Args:
        space: The search space.
        head: The head.

    Attributes:
        last_part: Number of the last part of the space that a network with this head has: that of
            the last stage whose map a dense head reads.
    """

    def __init__(self, space: SearchSpace, head: TaskHead) -> None:
        self.space, self.head = space, head
        kind, smallest = TASKS[head.task].head_class(head.head), space.smallest
        self.last_part = len(space.parts) - 1
        if kind.dense:
            stages = [number for number, part in enumerate(space.parts) if part.stage is not None]
            self.last_part = stages[-1]
            self.last_part = [*self._maps(smallest)][kind.last_map(self.shapes(smallest))]
        self._known: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}
        self._usual = {
            size: self._maps(space.from_choices({**dict(space.smallest), "resolution": size}))
            for size in space.resolutions
        }

    def of(self, architecture: Architecture) -> np.ndarray:
        """(len(FEATURES),) costs of the head on an architecture."""
        resolution, total = architecture.resolution, np.zeros(len(FEATURES))
        for number, blocks in enumerate(self.space.blocks_of_parts(architecture)):
            total += self.of_part(number, resolution, blocks)
        return total

    def of_part(self, number: int, resolution: int, blocks: Sequence[Block]) -> np.ndarray:
        """(len(FEATURES),) costs that a part of the backbone decides; they sum up to `of`."""
        usual, total = self._usual[resolution], np.zeros(len(FEATURES))
        if number == 0:
            total += self._features(resolution, usual)
        if number in usual:
            changed = {**usual, number: _map_of(blocks)}
            total += self._features(resolution, changed) - self._features(resolution, usual)
        return total

    def shapes(self, architecture: Architecture) -> MapShapes:
        """The maps of a network that the head gets."""
        return _shapes(architecture.resolution, self._maps(architecture))

    def blocks(self, architecture: Architecture) -> tuple[tuple[Block, ...], tuple[int, ...]]:
        """The blocks of a network with this head, and the numbers of those whose maps it gets."""
        maps, found, reads = self._maps(architecture), [], []
        parts = self.space.blocks_of_parts(architecture)[: self.last_part + 1]
        for number, blocks in enumerate(parts):
            found += [block for block in blocks if not block.is_last]
            if number in maps:
                reads.append(len(found) - 1)
        return tuple(found), tuple(reads)

    def _maps(self, architecture: Architecture) -> dict[int, tuple[int, int]]:
        """Channels and size of the last map of each size, by the number of its part."""
        found: dict[int, tuple[int, int]] = {}
        parts = self.space.blocks_of_parts(architecture)[: self.last_part + 1]
        for number, blocks in enumerate(parts):
            if not all(block.is_last for block in blocks):
                own = _map_of(blocks)
                found = {n: each for n, each in found.items() if each[1] != own[1]}
                found[number] = own
        return found

    def _features(self, resolution: int, maps: dict[int, tuple[int, int]]) -> np.ndarray:
        key = resolution, tuple(channels for channels, _ in maps.values())
        if key not in self._known:
            self._known[key] = _counted(self.head, _shapes(resolution, maps))
        return self._known[key]


def _map_of(blocks: Sequence[Block]) -> tuple[int, int]:
    """Channels and size of the last map of a part."""
    channels, size, _ = [block.out_shape for block in blocks if not block.is_last][-1]
    return channels, size


def _shapes(resolution: int, maps: dict[int, tuple[int, int]]) -> MapShapes:
    from edgesearch.tasks.backbone import MapShapes

    channels, sizes = zip(*maps.values(), strict=True)
    return MapShapes(channels, sizes, resolution)


def _counted(head: TaskHead, shapes: MapShapes) -> np.ndarray:
    """The `FEATURES` of a head, without computing its outputs."""
    import torch
    from torch import nn

    macs = values = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal macs, values
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        macs += output.numel() * weight[0].numel()
        values += inputs[0].numel() + output.numel()

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        module = TASKS[head.task].head_class(head.head)(shapes, head.classes).eval().to("meta")
        for layer in module.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.register_forward_hook(count)
        pairs = zip(shapes.channels, shapes.sizes, strict=True)
        maps = [torch.zeros(1, channels, size, size, device="meta") for channels, size in pairs]
        outputs = module.outputs(module.raw(maps))
    values += sum(each.numel() for each in outputs)
    return np.array([macs, values], float)
