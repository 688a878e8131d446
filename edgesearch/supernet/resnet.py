"""Residual networks made of the blocks that a search space names.

The same modules serve the supernet (with dynamic layers) and extracted subnets (with plain ones).
Their names are those of torchvision's ResNet: conv1, bn1, layer1.0.conv1, layer1.0.downsample.0 …

Rectifiers and shortcuts overwrite the output of a normalisation, which no gradient needs: a step
touches less memory, and gives the same bits. The input of a block is never written to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.space import Block

MakeConv = Callable[[int, int, int, int, int], nn.Conv2d]
"""(in_channels, out_channels, kernel_size, stride, padding) to a convolution without bias."""


def plain_conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int
) -> nn.Conv2d:
    """A convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, block: Block, conv: MakeConv, norm: type[nn.BatchNorm2d]) -> None:
        super().__init__()
        self.conv1 = conv(block.in_channels, block.mid_channels, 3, block.stride, 1)
        self.bn1 = norm(block.mid_channels)
        self.conv2 = conv(block.mid_channels, block.out_channels, 3, 1, 1)
        self.bn2 = norm(block.out_channels)
        self.downsample = _projection(block, conv, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu_(self.bn1(self.conv1(x)))
        return F.relu_(self.bn2(self.conv2(out)).add_(shortcut))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; the stride is in the middle one."""

    def __init__(self, block: Block, conv: MakeConv, norm: type[nn.BatchNorm2d]) -> None:
        super().__init__()
        self.conv1 = conv(block.in_channels, block.mid_channels, 1, 1, 0)
        self.bn1 = norm(block.mid_channels)
        self.conv2 = conv(block.mid_channels, block.mid_channels, 3, block.stride, 1)
        self.bn2 = norm(block.mid_channels)
        self.conv3 = conv(block.mid_channels, block.out_channels, 1, 1, 0)
        self.bn3 = norm(block.out_channels)
        self.downsample = _projection(block, conv, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu_(self.bn1(self.conv1(x)))
        out = F.relu_(self.bn2(self.conv2(out)))
        return F.relu_(self.bn3(self.conv3(out)).add_(shortcut))


def _projection(block: Block, conv: MakeConv, norm: type[nn.BatchNorm2d]) -> nn.Sequential | None:
    if not block.projection:
        return None
    return nn.Sequential(
        conv(block.in_channels, block.out_channels, 1, block.stride, 0), norm(block.out_channels)
    )


RESIDUAL_BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """A residual network that ends in global average pooling.

    Args:
        blocks: From stem to head, as `SearchSpace.blocks` gives them.
        conv: Makes the convolutions.
        norm: Makes the normalisations.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        conv: MakeConv = plain_conv,
        norm: type[nn.BatchNorm2d] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        stem, *residual, head = blocks
        kernel = 7 if stem.kind == "stem_imagenet" else 3
        self.conv1 = conv(stem.in_channels, stem.out_channels, kernel, stem.stride, kernel // 2)
        self.bn1 = norm(stem.out_channels)
        self.max_pool = stem.kind == "stem_imagenet"
        self.feature_dim = head.out_channels
        stages: list[list[Block]] = []
        for block in residual:
            if block.projection:
                stages.append([])
            stages[-1].append(block)
        self.stage_names = [f"layer{number}" for number in range(1, len(stages) + 1)]
        for name, stage in zip(self.stage_names, stages, strict=True):
            modules = [RESIDUAL_BLOCKS[block.kind](block, conv, norm) for block in stage]
            self.add_module(name, nn.ModuleList(modules))
        self.active_depths = [len(stage) for stage in stages]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation, and zero for the last scale of each block (Goyal et al., 2017)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for residual in self.residual_blocks():
            last = residual.bn3 if isinstance(residual, Bottleneck) else residual.bn2
            nn.init.zeros_(last.weight)

    def residual_blocks(self) -> list[BasicBlock | Bottleneck]:
        """The active blocks, in order."""
        return [
            block
            for name, depth in zip(self.stage_names, self.active_depths, strict=True)
            for block in list(self.get_submodule(name).children())[:depth]
            if isinstance(block, BasicBlock | Bottleneck)
        ]

    def forward_stem(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, stem width, H', W')."""
        x = F.relu_(self.bn1(self.conv1(images)))
        return F.max_pool2d(x, 3, 2, 1) if self.max_pool else x

    def forward_blocks(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The output of each block, from stem to head: maps (N, C, H, W), then (N, D)."""
        outputs = [self.forward_stem(images)]
        for block in self.residual_blocks():
            outputs.append(block(outputs[-1]))
        outputs.append(outputs[-1].mean(dim=(2, 3)))
        return outputs

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to features (N, D)."""
        x = self.forward_stem(images)
        for block in self.residual_blocks():
            x = block(x)
        return x.mean(dim=(2, 3))
