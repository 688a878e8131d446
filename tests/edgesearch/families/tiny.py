"""A second family, for tests: a chain of 3×3 convolutions of elastic width and depth."""

from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import nn

from edgesearch.space import Part, SearchSpace
from edgesearch.space.network import PLAIN, Network, Step, set_width


@dataclass(frozen=True)
class TinyBlock:
    """A convolution with normalisation and rectifier, or the pooling behind the last one.

    A stride of 2 begins a stage.
    """

    kind: str
    in_channels: int
    out_channels: int
    stride: int
    hw: int

    @property
    def key(self):
        return f"{self.kind}/in{self.in_channels}/out{self.out_channels}/s{self.stride}/hw{self.hw}"

    @property
    def out_shape(self):
        side = (self.hw - 1) // self.stride + 1
        return (self.out_channels,) if self.is_last else (self.out_channels, side, side)

    @property
    def macs(self):
        if self.is_last:
            return 0
        return 9 * self.in_channels * self.out_channels * self.out_shape[1] ** 2

    @property
    def params(self):
        return 0 if self.is_last else (9 * self.in_channels + 2) * self.out_channels

    @property
    def live_values(self):
        out = self.out_channels * (1 if self.is_last else self.out_shape[1] ** 2)
        return self.in_channels * self.hw**2 + out

    @property
    def is_first(self):
        return self.kind == "first"

    @property
    def is_last(self):
        return self.kind == "pool"


@dataclass(frozen=True)
class TinySpace(SearchSpace):
    """Stages of convolutions, each of which halves the image first."""

    name: str
    widths: tuple
    depths: tuple
    resolutions: tuple
    in_channels: int = 3
    family: str = "tiny"

    def faults(self):
        if len(self.widths) != len(self.depths):
            yield "other numbers of widths and depths"

    @property
    def own_choices(self):
        choices = {}
        for number, (widths, depths) in enumerate(zip(self.widths, self.depths, strict=False)):
            choices |= {f"width{number}": widths, f"depth{number}": depths}
        return choices

    @property
    def text_form(self):
        return {"tiny": ("resolution",), "": tuple(self.own_choices)}

    @property
    def parts(self):
        stages = [
            Part(
                (*([f"width{number - 1}"] if number else []), f"width{number}", f"depth{number}"),
                partial(self._stage, number),
                f"stage{number}",
            )
            for number in range(len(self.widths))
        ]
        return (*stages, Part((f"width{len(self.widths) - 1}",), self._pool))

    def _stage(self, number, resolution, *chosen):
        *before, width, depth = chosen
        kind, in_channels = ("conv", before[0]) if before else ("first", self.in_channels)
        first = TinyBlock(kind, in_channels, width, 2, halved(resolution, number))
        rest = TinyBlock("conv", width, width, 1, halved(resolution, number + 1))
        return [first, *[rest] * (depth - 1)]

    def _pool(self, resolution, width):
        return [TinyBlock("pool", width, width, 1, halved(resolution, len(self.widths)))]

    def make_network(self, blocks, layers=None):
        return TinyNetwork(blocks, layers or PLAIN)


class Unit(nn.Module):
    def __init__(self, block, layers):
        super().__init__()
        self.conv = layers.conv(block.in_channels, block.out_channels, 3, block.stride, 1)
        self.norm = layers.norm(block.out_channels)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


class TinyNetwork(Network):
    def __init__(self, blocks, layers):
        super().__init__()
        stages = stages_of(blocks)
        for name, stage in stages.items():
            self.add_module(name, nn.ModuleList(Unit(block, layers) for block in stage))
        self.depths = {name: len(stage) for name, stage in stages.items()}
        self.feature_dim = blocks[-1].out_channels
        self.stage_channels = {name: stage[-1].out_channels for name, stage in stages.items()}

    def steps(self):
        return [
            Step(name, (f"{name}.{i}",), unit)
            for name, depth in self.depths.items()
            for i, unit in enumerate(list(self.get_submodule(name))[:depth])
        ]

    def activate(self, blocks):
        self.depths = {name: len(stage) for name, stage in stages_of(blocks).items()}
        for step, block in zip(self.steps(), blocks[:-1], strict=True):
            set_width(step.run.conv, block.out_channels)

    def in_turn(self):
        return {name: nn.Sequential(*self.get_submodule(name)) for name in self.stage_channels}


def stages_of(blocks):
    stages = []
    for block in blocks[:-1]:
        if block.stride == 2:
            stages.append([])
        stages[-1].append(block)
    return {f"stage{number}": stage for number, stage in enumerate(stages)}


def halved(hw, times):
    for _ in range(times):
        hw = (hw + 1) // 2
    return hw
