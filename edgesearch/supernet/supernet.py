"""The weight-sharing network that holds every architecture of a space."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from edgesearch.space import Architecture, Block, SearchSpace
from edgesearch.supernet.dynamic_ops import DynamicBatchNorm2d, DynamicConv2d
from edgesearch.supernet.resnet import BasicBlock, Bottleneck, ResNet


class Supernet(nn.Module):
    """The largest network of a space, of which any architecture can be made the active part.

    An architecture uses the leading channels of each layer and the leading blocks of each stage.

    Source: DATA (CVPR 2022), section 3.1; Once-for-All (ICLR 2020) for the slicing.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        largest = space.blocks(space.largest)
        self.backbone = ResNet(largest, DynamicConv2d, DynamicBatchNorm2d)
        self.active = space.largest
        self._compiled: Callable[[torch.Tensor], list[torch.Tensor]] | None = None
        self._compiled_for: frozenset[Architecture] = frozenset()

    @property
    def feature_dim(self) -> int:
        """Length of the largest network's features."""
        return self.backbone.feature_dim

    def activate(self, architecture: Architecture) -> None:
        """Make an architecture the one that `forward` runs.

        Raises:
            SpaceError: It is not of this space.
        """
        self.space.index(architecture)
        stem, *residual, _ = self.space.blocks(architecture)
        _set_width(self.backbone.conv1, stem.out_channels)
        self.backbone.active_depths = list(architecture.stage_depths)
        for module, block in zip(self.backbone.residual_blocks(), residual, strict=True):
            _set_widths(module, block)
        self.active = architecture

    def compile_for(self, architectures: Iterable[Architecture], backend: str = "inductor") -> None:
        """Run these architectures by compiled code from now on, one version for each.

        Args:
            architectures: Few; others run as before.
            backend: Of torch.compile.
        """
        self._compiled_for = frozenset(architectures)
        self._compiled = torch.compile(self.backbone.forward_blocks, dynamic=False, backend=backend)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to features (N, D) of the active architecture."""
        return self._outputs(images)[-1]

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the last stage's output (N, D, H', W'), whose mean the features are."""
        return self._outputs(images)[-2]

    def _outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        if self._compiled is None or self.active not in self._compiled_for:
            return self.backbone.forward_blocks(images)
        return self._compiled(images)


def _set_widths(module: BasicBlock | Bottleneck, block: Block) -> None:
    _set_width(module.conv1, block.mid_channels)
    if isinstance(module, Bottleneck):
        _set_width(module.conv2, block.mid_channels)
        _set_width(module.conv3, block.out_channels)
    else:
        _set_width(module.conv2, block.out_channels)
    if module.downsample is not None:
        _set_width(module.downsample[0], block.out_channels)


def _set_width(conv: nn.Module, channels: int) -> None:
    assert isinstance(conv, DynamicConv2d)
    conv.active_out_channels = channels
