"""The interface of a family's networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

MakeConv = Callable[[int, int, int, int, int], nn.Conv2d]
"""(in_channels, out_channels, kernel_size, stride, padding) to a convolution without bias."""


class Layers(NamedTuple):
    """What a network is built of: plain layers (`PLAIN`), or those of a supernet.

    Attributes:
        conv: Makes convolutions.
        norm: Makes batch normalisations of so many channels.
    """

    conv: MakeConv
    norm: Callable[[int], nn.BatchNorm2d]


PLAIN = Layers(partial(nn.Conv2d, bias=False), nn.BatchNorm2d)


def set_width(conv: nn.Module, channels: int) -> None:
    """Let an elastic convolution use its leading output channels only."""
    conv.active_out_channels = channels  # type: ignore[assignment]  # see `DynamicConv2d`


class Step(NamedTuple):
    """An active block of a network.

    Attributes:
        stage: Name of its stage, "" between stages.
        modules: Names of the network's modules that it consists of.
        run: Maps (N, C, H, W) to (N, C', H', W').
    """

    stage: str
    modules: tuple[str, ...]
    run: Callable[[torch.Tensor], torch.Tensor]


class Network(nn.Module):
    """A network of a family, static or elastic, that maps images to features.

    Its last block is global average pooling: features are the means of the map before it.

    Attributes:
        feature_dim: Length D of the features.
        stage_channels: Channels of each stage's map, by the stage's name; a stage has its blocks
            in a module of this name.
    """

    feature_dim: int
    stage_channels: dict[str, int]

    def steps(self) -> list[Step]:
        """The active blocks in order, from the first to the one before the pooling."""
        raise NotImplementedError

    def in_turn(self) -> dict[str, nn.Module]:
        """Modules that make the last map when they are run in turn, stages under their names.

        They are those of the network (static, in full size), not copies.
        """
        raise NotImplementedError

    def activate(self, blocks: Sequence[Any]) -> None:
        """Make an elastic network run the given blocks of its family, pooling included."""
        raise NotImplementedError

    def stage_ends(self) -> list[int]:
        """For each stage the number of steps up to its end."""
        last = {step.stage: number for number, step in enumerate(self.steps(), 1)}
        return [last[name] for name in self.stage_channels]

    def forward_blocks(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The output of each block: maps (N, C, H, W), then features (N, D)."""
        outputs = [images]
        for step in self.steps():
            outputs.append(step.run(outputs[-1]))
        return [*outputs[1:], outputs[-1].mean(dim=(2, 3))]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to features (N, D)."""
        x = images
        for step in self.steps():
            x = step.run(x)
        return x.mean(dim=(2, 3))
