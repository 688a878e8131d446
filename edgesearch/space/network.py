"""The interface of a family's networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn


class MakeConv(Protocol):
    """Makes a bias-free convolution, depthwise if `groups` is the number of channels."""

    def __call__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        groups: int = 1,
    ) -> nn.Conv2d:
        """The convolution."""


class MakeNorm(Protocol):
    """Makes a batch normalisation."""

    def __call__(self, num_features: int, eps: float = 1e-5) -> nn.BatchNorm2d:
        """The normalisation."""


class Layers(NamedTuple):
    """Constructors of convolutions and batch normalisations: `PLAIN`, or those of a supernet."""

    conv: MakeConv
    norm: MakeNorm


PLAIN = Layers(partial(nn.Conv2d, bias=False), nn.BatchNorm2d)


def set_width(conv: nn.Module, channels: int) -> None:
    """Set the number of leading output channels that an elastic convolution uses."""
    conv.active_out_channels = channels  # type: ignore[assignment]  # see `DynamicConv2d`


def set_kernel(conv: nn.Conv2d, kernel_size: int, stride: int, padding: int) -> None:
    """Set the kernel size (centre crop), stride and padding that an elastic convolution uses."""
    conv.active_kernel_size = kernel_size  # type: ignore[assignment]  # see `DynamicConv2d`
    conv.stride, conv.padding = (stride, stride), (padding, padding)


class Step(NamedTuple):
    """An active block: a map (N, C, H, W) to (N, C', H', W').

    `stage` is the name of its stage ("" between stages), `modules` names its modules.
    """

    stage: str
    modules: tuple[str, ...]
    run: Callable[[torch.Tensor], torch.Tensor]


class Inner(NamedTuple):
    """Channels inside of a block, which may be permuted without changing what the block computes.

    `made_by` names the modules whose outputs they are, normalisations included; `read_by` names
    the convolution that reads them.
    """

    made_by: tuple[str, ...]
    read_by: str


class Network(nn.Module):
    """A network of a family, static or elastic, that maps images to features (N, feature_dim).

    The last block is global average pooling of the last feature map. `stage_channels` are the
    output channels by stage; the module of this name holds the stage's blocks.
    """

    feature_dim: int
    stage_channels: dict[str, int]

    def steps(self) -> list[Step]:
        """The active blocks in order, without the pooling."""
        raise NotImplementedError

    def in_turn(self) -> dict[str, nn.Module]:
        """The modules (not copies) whose sequence computes the last feature map, by name.

        For static networks; each stage is one module under its name.
        """
        raise NotImplementedError

    def activate(self, blocks: Sequence[Any]) -> None:
        """Make an elastic network run these blocks of its family, pooling included."""
        raise NotImplementedError

    def inner_channels(self) -> list[Inner]:
        """The inner channels of all blocks; needed for public weights only."""
        return []

    def last_norms(self) -> dict[str, str]:
        """The last normalisation of each residual block, by the name of the block.

        A block behind the first of a stage whose last scale and shift are zero passes on its input.
        Needed for public weights only.
        """
        return {}

    def stage_ends(self) -> list[int]:
        """Number of steps up to the end of each stage."""
        last = {step.stage: number for number, step in enumerate(self.steps(), 1)}
        return [last[name] for name in self.stage_channels]

    def forward_blocks(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The output of each block: feature maps (N, C, H, W), then features (N, D)."""
        outputs = [images]
        for step in self.steps():
            outputs.append(step.run(outputs[-1]))
        return [*outputs[1:], outputs[-1].mean(dim=(2, 3))]

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the last feature map (N, D, H', W')."""
        x = images
        for step in self.steps():
            x = step.run(x)
        return x

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to features (N, D)."""
        return self.feature_map(images).mean(dim=(2, 3))
