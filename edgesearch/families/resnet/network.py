"""Residual networks, static and elastic.

Module names are those of torchvision's ResNet: conv1, bn1, layer1.0.conv1, layer1.0.downsample.0 …

Activations and additions overwrite the output of a normalisation, which backward does not need:
less memory traffic, identical results. A block never writes to its input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.families.resnet.block import ResNetBlock
from edgesearch.space.network import PLAIN, Inner, Layers, Network, Step, set_width


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, block: ResNetBlock, layers: Layers) -> None:
        super().__init__()
        conv, norm = layers
        self.conv1 = conv(block.in_channels, block.mid_channels, 3, block.stride, 1)
        self.bn1 = norm(block.mid_channels)
        self.conv2 = conv(block.mid_channels, block.out_channels, 3, 1, 1)
        self.bn2 = norm(block.out_channels)
        self.downsample = _projection(block, layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu_(self.bn1(self.conv1(x)))
        return F.relu_(self.bn2(self.conv2(out)).add_(shortcut))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; the 3×3 convolution has the stride."""

    def __init__(self, block: ResNetBlock, layers: Layers) -> None:
        super().__init__()
        conv, norm = layers
        self.conv1 = conv(block.in_channels, block.mid_channels, 1, 1, 0)
        self.bn1 = norm(block.mid_channels)
        self.conv2 = conv(block.mid_channels, block.mid_channels, 3, block.stride, 1)
        self.bn2 = norm(block.mid_channels)
        self.conv3 = conv(block.mid_channels, block.out_channels, 1, 1, 0)
        self.bn3 = norm(block.out_channels)
        self.downsample = _projection(block, layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu_(self.bn1(self.conv1(x)))
        out = F.relu_(self.bn2(self.conv2(out)))
        return F.relu_(self.bn3(self.conv3(out)).add_(shortcut))


def _projection(block: ResNetBlock, layers: Layers) -> nn.Sequential | None:
    if not block.projection:
        return None
    return nn.Sequential(
        layers.conv(block.in_channels, block.out_channels, 1, block.stride, 0),
        layers.norm(block.out_channels),
    )


RESIDUAL_BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(Network):
    """A residual network that ends in global average pooling.

    Args:
        blocks: From stem to head, as `ResNetSpace.blocks` returns them.
        layers: Layer constructors.
    """

    def __init__(self, blocks: Sequence[ResNetBlock], layers: Layers = PLAIN) -> None:
        super().__init__()
        stem, stages, head = _split(blocks)
        kernel = 7 if stem.kind == "stem_imagenet" else 3
        self.conv1 = layers.conv(
            stem.in_channels, stem.out_channels, kernel, stem.stride, kernel // 2
        )
        self.bn1 = layers.norm(stem.out_channels)
        self.max_pool = stem.kind == "stem_imagenet"
        self.feature_dim = head.out_channels
        self.stage_channels = {
            f"layer{number}": stage[0].out_channels for number, stage in enumerate(stages, 1)
        }
        for name, stage in zip(self.stage_channels, stages, strict=True):
            modules = [RESIDUAL_BLOCKS[block.kind](block, layers) for block in stage]
            self.add_module(name, nn.ModuleList(modules))
        self.active_depths = [len(stage) for stage in stages]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation; each block's last scale is zero (Goyal et al., 2017)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for last in self.last_norms().values():
            nn.init.zeros_(self.get_parameter(f"{last}.weight"))

    def steps(self) -> list[Step]:
        """Stem and active residual blocks."""
        stem = Step("", ("conv1", "bn1"), self.forward_stem)
        return [stem, *(
            Step(name, (f"{name}.{number}",), block)
            for name, depth in zip(self.stage_channels, self.active_depths, strict=True)
            for number, block in enumerate(list(self.get_submodule(name).children())[:depth])
        )]  # fmt: skip

    def residual_blocks(self) -> list[BasicBlock | Bottleneck]:
        """The active residual blocks, in order."""
        blocks = (step.run for step in self.steps())
        return [block for block in blocks if isinstance(block, BasicBlock | Bottleneck)]

    def inner_channels(self) -> list[Inner]:
        """See `Network`."""
        found = []
        for step in self.steps()[1:]:
            (name,) = step.modules
            convs = 2 if isinstance(step.run, BasicBlock) else 3
            found += [
                Inner((f"{name}.conv{i}", f"{name}.bn{i}"), f"{name}.conv{i + 1}")
                for i in range(1, convs)
            ]
        return found

    def last_norms(self) -> dict[str, str]:
        """See `Network`."""
        return {
            name: f"{name}.bn{2 if isinstance(step.run, BasicBlock) else 3}"
            for step in self.steps()[1:]
            for name in step.modules
        }

    def activate(self, blocks: Sequence[ResNetBlock]) -> None:
        """Use the leading channels of each layer and the leading blocks of each stage."""
        stem, stages, _ = _split(blocks)
        set_width(self.conv1, stem.out_channels)
        self.active_depths = [len(stage) for stage in stages]
        residual = [block for stage in stages for block in stage]
        for module, block in zip(self.residual_blocks(), residual, strict=True):
            set_width(module.conv1, block.mid_channels)
            if isinstance(module, Bottleneck):
                set_width(module.conv2, block.mid_channels)
                set_width(module.conv3, block.out_channels)
            else:
                set_width(module.conv2, block.out_channels)
            if module.downsample is not None:
                set_width(module.downsample[0], block.out_channels)

    def in_turn(self) -> dict[str, nn.Module]:
        """Names and order of torchvision's ResNet; `maxpool` of a small stem is the identity."""
        stages = {name: self.get_submodule(name) for name in self.stage_channels}
        return {
            "conv1": self.conv1,
            "bn1": self.bn1,
            "relu": nn.ReLU(inplace=True),
            "maxpool": nn.MaxPool2d(3, 2, 1) if self.max_pool else nn.Identity(),
            **{name: nn.Sequential(*stage.children()) for name, stage in stages.items()},
        }

    def forward_stem(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, stem width, H', W')."""
        x = F.relu_(self.bn1(self.conv1(images)))
        return F.max_pool2d(x, 3, 2, 1) if self.max_pool else x


def _split(
    blocks: Sequence[ResNetBlock],
) -> tuple[ResNetBlock, list[list[ResNetBlock]], ResNetBlock]:
    """Stem, the blocks of each stage, and head; a projection starts all stages but the first."""
    stem, *residual, head = blocks
    stages: list[list[ResNetBlock]] = []
    for block in residual:
        if block.projection or not stages:
            stages.append([])
        stages[-1].append(block)
    return stem, stages, head
