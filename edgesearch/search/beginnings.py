"""Candidates that begin alike: what their first blocks compute is computed once.

Equal first blocks have equal weights and see equal inputs, and so have equal outputs and, when they
are recalibrated on the same batches, equal statistics. Networks that begin alike therefore share
these modules. They are run one after the other on each batch of images, and go on from the outputs
that are kept of the one before: no figure is another than without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from edgesearch.space import Architecture, Block, SearchSpace
from edgesearch.supernet.resnet import ResNet

FAMILY_BYTES = 1 << 30
"""Weights and kept outputs of the networks that are run together, at most."""
WORTH = 0.05
"""Share of a network's MACs that has to be saved for it to be run with the one before."""
VALUE_BYTES = 4


class Outputs(NamedTuple):
    """What a network makes of a batch of images.

    Attributes:
        maps: The outputs of stages, (N, C, H, W).
        features: (N, D).
        embeddings: (N, E), of length 1.
    """

    maps: tuple[torch.Tensor, ...]
    features: torch.Tensor
    embeddings: torch.Tensor


@dataclass(frozen=True)
class Member:
    """A candidate that is run with others.

    Attributes:
        architecture: What it is.
        shared: How many of its first blocks are those of the one before it, too.
    """

    architecture: Architecture
    shared: int


def from_stem_to_head(architecture: Architecture) -> tuple[int, ...]:
    """The choices in the order in which they take effect: equal beginnings, equal first blocks."""
    stages = zip(architecture.stage_widths, architecture.stage_depths, strict=True)
    flat = (number for stage in stages for number in stage)
    return (architecture.resolution, architecture.stem_width, *flat)


def families(
    space: SearchSpace, architectures: Sequence[Architecture], batch_size: int
) -> list[list[Member]]:
    """Put together what begins alike, as far as it is worth it and there is memory.

    Args:
        space: Their space.
        architectures: In any order.
        batch_size: Images in each forward pass.

    Returns:
        Groups that are to be run one after another, all in order from stem to head.
    """
    found: list[list[Member]] = []
    former: list[tuple[int, Block]] = []
    room = 0
    for architecture in sorted(architectures, key=from_stem_to_head):
        blocks = _blocks(space, architecture)
        shared = 0
        while shared < min(len(blocks), len(former)) and blocks[shared] == former[shared]:
            shared += 1
        saved = sum(block.macs for _, block in blocks[:shared])
        own = space.params(architecture) * VALUE_BYTES
        kept = batch_size * _values_behind(blocks[:shared]) * VALUE_BYTES
        if shared and saved >= WORTH * space.macs(architecture) and own + kept <= room:
            found[-1].append(Member(architecture, shared))
            room -= own + kept
        else:
            found.append([Member(architecture, 0)])
            room = FAMILY_BYTES - own
        former = blocks
    return found


def _values_behind(blocks: Sequence[tuple[int, Block]]) -> int:
    """Values of one image that come out of the last of some blocks."""
    return blocks[-1][1].out_channels * blocks[-1][1].out_hw ** 2 if blocks else 0


def _blocks(space: SearchSpace, architecture: Architecture) -> list[tuple[int, Block]]:
    """Stem and residual blocks, each with the number of its stage."""
    stem, *residual, _ = space.blocks(architecture)
    depths = enumerate(architecture.stage_depths, 1)
    stages = [stage for stage, depth in depths for _ in range(depth)]
    return [(0, stem), *zip(stages, residual, strict=True)]


def share_beginning(network: ResNet, former: ResNet, count: int) -> None:
    """Give a network the first modules of another one that begins alike.

    Args:
        network: Gets them.
        former: Has them.
        count: How many, the stem being the first.
    """
    if not count:
        return
    network.conv1, network.bn1 = former.conv1, former.bn1
    left = count - 1
    for name, depth in zip(network.stage_names, network.active_depths, strict=True):
        stages = [one.get_submodule(name) for one in (network, former)]
        for number in range(min(depth, left)):
            setattr(stages[0], str(number), getattr(stages[1], str(number)))
        left -= min(depth, left)


def run_family(
    networks: Sequence[nn.Sequential],
    shared: Sequence[int],
    images: torch.Tensor,
    stages: Sequence[int] = (),
) -> Iterator[Outputs]:
    """Run networks one after the other, each from where it begins to differ.

    Args:
        networks: Backbones, each followed by a projector, with shared beginnings.
        shared: How many first blocks each has in common with the one before.
        images: (N, C, H, W).
        stages: Whose maps are given, from 1 on.

    Yields:
        The outputs of each network.
    """
    kept = {0: images}
    for number, (network, first) in enumerate(zip(networks, shared, strict=True), 1):
        backbone, *head = network
        assert isinstance(backbone, ResNet)
        ends = [1 + sum(backbone.active_depths[:stage]) for stage in stages]
        needed = {*ends, *shared[number:]}
        kept = {level: output for level, output in kept.items() if level <= first}
        x = kept[first]
        blocks = [backbone.forward_stem, *backbone.residual_blocks()]
        for level, block in enumerate(blocks[first:], first + 1):
            x = block(x)
            if level in needed:
                kept[level] = x
        embeddings = features = x.mean(dim=(2, 3))
        for module in head:
            embeddings = module(embeddings)
        yield Outputs(tuple(kept[end] for end in ends), features, embeddings)
