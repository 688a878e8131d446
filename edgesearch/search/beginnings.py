"""Networks with a common prefix of blocks, which is computed once.

Equal first blocks have equal weights, inputs and (recalibrated on the same batches) statistics.
Networks with a common prefix therefore share these modules, and each runs on a batch from the
cached outputs of the previous one. The results do not change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from edgesearch.space import Architecture, Block, SearchSpace
from edgesearch.space.network import Network

FAMILY_BYTES = 1 << 30
"""Maximum size of weights and cached outputs of networks that run together."""
WORTH = 0.05
"""Minimum share of a network's MACs that sharing must save."""
VALUE_BYTES = 4


class Outputs(NamedTuple):
    """Outputs of a network for a batch of images.

    Attributes:
        maps: Outputs of stages, (N, C, H, W).
        features: (N, D).
        embeddings: (N, E), of length 1.
    """

    maps: tuple[torch.Tensor, ...]
    features: torch.Tensor
    embeddings: torch.Tensor


@dataclass(frozen=True)
class Member:
    """A candidate, and the number of first blocks that it shares with the previous one."""

    architecture: Architecture
    shared: int


def families(
    space: SearchSpace,
    architectures: Sequence[Architecture],
    batch_size: int,
    is_alone: Callable[[Architecture], bool] = lambda architecture: False,
) -> list[list[Member]]:
    """Group architectures with common prefixes, if this saves enough and fits in memory.

    Architectures for which `is_alone` holds have statistics of their own and share nothing.

    Returns:
        Groups to run together, sorted by prefix.
    """
    found: list[list[Member]] = []
    former: list[tuple[int, Block]] = []
    room = 0
    for architecture in space.by_beginning(architectures):
        blocks = [] if is_alone(architecture) else _blocks(space, architecture)
        shared = 0
        while shared < min(len(blocks), len(former)) and blocks[shared] == former[shared]:
            shared += 1
        saved = sum(block.macs for _, block in blocks[:shared])
        own = space.params(architecture) * VALUE_BYTES
        values = math.prod(blocks[shared - 1][1].out_shape) if shared else 0
        kept = batch_size * values * VALUE_BYTES
        if shared and saved >= WORTH * space.macs(architecture) and own + kept <= room:
            found[-1].append(Member(architecture, shared))
            room -= own + kept
        else:
            found.append([Member(architecture, 0)])
            room = FAMILY_BYTES - own
        former = blocks
    return found


def _blocks(space: SearchSpace, architecture: Architecture) -> list[tuple[int, Block]]:
    """All blocks except the pooling, each with the number of its part."""
    parts = enumerate(space.blocks_of_parts(architecture))
    return [(number, block) for number, blocks in parts for block in blocks][:-1]


def share_beginning(network: Network, former: Network, count: int) -> None:
    """Replace the first `count` blocks of a network by those of another."""
    for step in former.steps()[:count]:
        for name in step.modules:
            network.set_submodule(name, former.get_submodule(name))


def run_family(
    networks: Sequence[nn.Sequential],
    shared: Sequence[int],
    images: torch.Tensor,
    stages: Sequence[int] = (),
) -> Iterator[Outputs]:
    """Run networks one after the other, each from its first block that is not shared.

    Args:
        networks: Backbones, each followed by a projector, with shared prefixes.
        shared: Number of first blocks that each network shares with the previous one.
        images: (N, C, H, W).
        stages: Stages whose maps are returned, counted from 1.
    """
    kept = {0: images}
    for number, (network, first) in enumerate(zip(networks, shared, strict=True), 1):
        backbone, *head = network
        assert isinstance(backbone, Network)
        ends = [backbone.stage_ends()[stage - 1] for stage in stages]
        needed = {*ends, *shared[number:]}
        kept = {level: output for level, output in kept.items() if level <= first}
        x = kept[first]
        for level, step in enumerate(backbone.steps()[first:], first + 1):
            x = step.run(x)
            if level in needed:
                kept[level] = x
        embeddings = features = x.mean(dim=(2, 3))
        for module in head:
            embeddings = module(embeddings)
        yield Outputs(tuple(kept[end] for end in ends), features, embeddings)
