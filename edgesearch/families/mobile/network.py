"""Mobile networks, static and elastic.

Activations and additions overwrite the output of a normalisation: less memory traffic, identical
results. A block never writes to its input.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.families.mobile.block import Convolution, MobileBlock
from edgesearch.space.network import PLAIN, Inner, Layers, Network, Step, set_kernel, set_width

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu_,
    "relu6": partial(F.relu6, inplace=True),
    "hard_swish": partial(F.hardswish, inplace=True),
}


class Unit(nn.Module):
    """A convolution, its normalisation, and an activation behind some.

    Args:
        activation: Of the space; "" for none.
        tensorflow: Pad strided convolutions as TensorFlow does. The exporter writes this as an
            operation of its own, which `formats` folds into the convolution.
    """

    def __init__(
        self, of: Convolution, layers: Layers, activation: str, tensorflow: bool, norm_eps: float
    ) -> None:
        super().__init__()
        self.tensorflow = tensorflow
        groups = of.in_channels if of.depthwise else 1
        ends = of.in_channels, of.out_channels
        self.conv = layers.conv(*ends, of.kernel, of.stride, self._padding(of), groups=groups)
        self.norm = layers.norm(of.out_channels, eps=norm_eps)
        self.activation = activation if of.activated else ""
        self.kernel, self.stride = of.kernel, of.stride

    def activate(self, of: Convolution) -> None:
        """Make an elastic convolution this one."""
        set_width(self.conv, of.out_channels)
        set_kernel(self.conv, of.kernel, of.stride, self._padding(of))
        self.kernel, self.stride = of.kernel, of.stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        if self.tensorflow and self.stride > 1:
            height, width = (tensorflow_pads(n, self.kernel, self.stride) for n in x.shape[2:])
            x = F.pad(x, (*width, *height))
        out: torch.Tensor = self.norm(self.conv(x))
        return ACTIVATIONS[self.activation](out) if self.activation else out

    def _padding(self, of: Convolution) -> int:
        return 0 if self.tensorflow and of.stride > 1 else of.kernel // 2


def tensorflow_pads(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and behind an axis, as TensorFlow's padding "SAME" has them."""
    outputs = (length - 1) // stride + 1
    pads = max(0, (outputs - 1) * stride + kernel - length)
    return pads // 2, pads - pads // 2


class InvertedBottleneck(nn.Module):
    """A universal inverted bottleneck (Qin et al., "MobileNetV4", ECCV 2024, section 3).

    Depthwise convolution, expansion, depthwise convolution, projection, and the input added where
    shapes allow; all but the projection are optional, also in the elastic form.
    """

    def __init__(self, block: MobileBlock, make_unit: Callable[[Convolution], Unit]) -> None:
        super().__init__()
        for each in block.convolutions:
            self.add_module(each.name, make_unit(each))
        self._use(block)

    def activate(self, block: MobileBlock) -> None:
        """Use the convolutions that the block has."""
        self._use(block)
        for each in block.convolutions:
            unit = self.get_submodule(each.name)
            assert isinstance(unit, Unit)
            unit.activate(each)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        out = x
        for name in self.active:
            out = self.get_submodule(name)(out)
        return out.add_(x) if self.is_residual else out

    def _use(self, block: MobileBlock) -> None:
        self.active = [each.name for each in block.convolutions]
        self.is_residual = block.is_residual


class MobileNetwork(Network):
    """A mobile network that ends in a 1×1 convolution and global average pooling.

    Args:
        blocks: From stem to head, as `MobileSpace.blocks` returns them.
        layers: Layer constructors.
        tensorflow: See `Unit`.
        norm_eps: Added to the variances of the normalisations.
    """

    def __init__(
        self,
        blocks: Sequence[MobileBlock],
        layers: Layers = PLAIN,
        tensorflow: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        stem, stages, last, head = _split(blocks)

        def make_unit(activation: str, of: Convolution) -> Unit:
            return Unit(of, layers, activation, tensorflow, norm_eps)

        self.stem = nn.Sequential(*(make_unit(stem.activation, of) for of in stem.convolutions))
        self.feature_dim = head.out_channels
        self.stage_channels = {name: stage[0].out_channels for name, stage in stages.items()}
        for name, stage in stages.items():
            modules = [
                InvertedBottleneck(block, partial(make_unit, block.activation)) for block in stage
            ]
            self.add_module(name, nn.ModuleList(modules))
        self.last = make_unit(last.activation, last.convolutions[0])
        self.active_depths = [len(stage) for stage in stages.values()]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation, with the fan-out of each group."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))

    def steps(self) -> list[Step]:
        """Stem, active inverted bottlenecks, and the last convolution."""
        return [
            Step("", ("stem",), self.stem),
            *(
                Step(name, (f"{name}.{number}",), block)
                for name, depth in zip(self.stage_channels, self.active_depths, strict=True)
                for number, block in enumerate(list(self.get_submodule(name).children())[:depth])
            ),
            Step("", ("last",), self.last),
        ]

    def inner_channels(self) -> list[Inner]:
        """See `Network`."""
        found = []
        for step in self.steps():
            if not isinstance(step.run, InvertedBottleneck) or "expand" not in step.run.active:
                continue
            units = [f"{step.modules[0]}.{name}" for name in step.run.active if name != "start"]
            *inner, project = units
            made_by = [f"{unit}.{part}" for unit in inner for part in ("conv", "norm")]
            found.append(Inner(tuple(made_by), f"{project}.conv"))
        return found

    def last_norms(self) -> dict[str, str]:
        """See `Network`."""
        return {
            step.modules[0]: f"{step.modules[0]}.project.norm"
            for step in self.steps()
            if isinstance(step.run, InvertedBottleneck) and step.run.is_residual
        }

    def activate(self, blocks: Sequence[MobileBlock]) -> None:
        """Use leading channels, centres of kernels, and the leading blocks of each stage."""
        stem, stages, last, _ = _split(blocks)
        for unit, of in zip(self.stem.children(), stem.convolutions, strict=True):
            assert isinstance(unit, Unit)
            unit.activate(of)
        self.active_depths = [len(stage) for stage in stages.values()]
        _, *inverted, _ = self.steps()
        for step, block in zip(inverted, itertools.chain(*stages.values()), strict=True):
            assert isinstance(step.run, InvertedBottleneck)
            step.run.activate(block)
        self.last.activate(last.convolutions[0])

    def in_turn(self) -> dict[str, nn.Module]:
        """Stem, stages and last convolution."""
        stages = {name: self.get_submodule(name) for name in self.stage_channels}
        return {
            "stem": self.stem,
            **{name: nn.Sequential(*stage.children()) for name, stage in stages.items()},
            "last": self.last,
        }


def _split(
    blocks: Sequence[MobileBlock],
) -> tuple[MobileBlock, dict[str, list[MobileBlock]], MobileBlock, MobileBlock]:
    """Stem, the blocks of each stage by its name, last convolution, and head."""
    stem, *inverted, last, head = blocks
    stages: dict[str, list[MobileBlock]] = {}
    for block in inverted:
        stages.setdefault(f"stage{block.stage}", []).append(block)
    return stem, stages, last, head
