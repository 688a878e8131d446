"""Backbones: feature maps of several sizes, of subnets and of other networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from edgesearch.space.network import Network


@dataclass(frozen=True)
class MapShapes:
    """Shapes of the maps that a backbone gives for images (N, C, resolution, resolution).

    Attributes:
        channels: Channels of each map.
        sizes: Height and width of each map, falling.
        resolution: Height and width of the images.
    """

    channels: tuple[int, ...]
    sizes: tuple[int, ...]
    resolution: int

    def first_below(self, stride: int) -> int:
        """Number of the first map that is `stride` times smaller, rounded up; else the last."""
        most = math.ceil(self.resolution / stride)
        fitting = (number for number, size in enumerate(self.sizes) if size <= most)
        return next(fitting, len(self.sizes) - 1)


class Backbone(nn.Module):
    """Modules in turn; its outputs are the last map of each size.

    Args:
        parts: The modules (not copies), by name.
        resolution: Height and width of the images.
        in_channels: Channels of the images.

    Attributes:
        shapes: Of the maps.
        parts: Names of the modules, in order.
    """

    def __init__(self, parts: Mapping[str, nn.Module], resolution: int, in_channels: int) -> None:
        super().__init__()
        self.parts = list(parts)
        for name, module in parts.items():
            self.add_module(name, module)
        maps = self._all(torch.zeros(1, in_channels, resolution, resolution))
        sizes = [each.shape[-1] for each in maps]
        last = {size: number for number, size in enumerate(sizes)}
        self._kept = sorted(last.values())
        self.shapes = MapShapes(
            tuple(maps[n].shape[1] for n in self._kept),
            tuple(sizes[n] for n in self._kept),
            resolution,
        )

    @classmethod
    def of(cls, network: Network, resolution: int, in_channels: int, dense: bool) -> Backbone:
        """A subnet's; a dense head reads stages, so it goes without what follows the last stage."""
        parts = network.in_turn()
        if dense:
            names = list(parts)
            last = names.index(list(network.stage_channels)[-1])
            parts = {name: parts[name] for name in names[: last + 1]}
        return cls(parts, resolution, in_channels)

    def end_at(self, number: int) -> None:
        """Leave out the maps after one, and the modules that only they need."""
        last = self._kept[number]
        for name in self.parts[last + 1 :]:
            delattr(self, name)
        del self.parts[last + 1 :], self._kept[number + 1 :]
        channels, sizes = self.shapes.channels, self.shapes.sizes
        self.shapes = replace(
            self.shapes, channels=channels[: number + 1], sizes=sizes[: number + 1]
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(N, C, R, R) to maps (N, C', H, W), as `shapes` says."""
        maps, x = [], images
        for number, name in enumerate(self.parts):
            x = self.get_submodule(name)(x)
            if number in self._kept:
                maps.append(x)
        return maps

    @torch.no_grad()
    def _all(self, images: torch.Tensor) -> list[torch.Tensor]:
        modes = {module: module.training for module in self.modules()}
        self.eval()
        maps, x = [], images
        for name in self.parts:
            x = self.get_submodule(name)(x)
            maps.append(x)
        for module, mode in modes.items():
            module.training = mode
        return maps
