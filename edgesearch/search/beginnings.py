"""Candidates that begin alike: what their first blocks compute is computed once.

Equal first blocks have equal weights and see equal inputs, and so have equal outputs and, when they
are recalibrated on the same batches, equal statistics. Networks that begin alike therefore share
these modules. They are run one after the other on each batch of images, and go on from the outputs
that are kept of the one before: no figure is another than without.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from edgesearch.space import Architecture, Block, SearchSpace
from edgesearch.space.network import Network

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


def families(
    space: SearchSpace, architectures: Sequence[Architecture], batch_size: int
) -> list[list[Member]]:
    """Put together what begins alike, as far as it is worth it and there is memory.

    Args:
        space: Their space.
        architectures: In any order.
        batch_size: Images in each forward pass.

    Returns:
        Groups that are to be run one after another, sorted by their beginnings.
    """
    found: list[list[Member]] = []
    former: list[tuple[int, Block]] = []
    room = 0
    for architecture in space.by_beginning(architectures):
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
    return math.prod(blocks[-1][1].out_shape) if blocks else 0


def _blocks(space: SearchSpace, architecture: Architecture) -> list[tuple[int, Block]]:
    """All blocks but the pooling, each with the number of its part."""
    parts = enumerate(space.blocks_of_parts(architecture))
    return [(number, block) for number, blocks in parts for block in blocks][:-1]


def share_beginning(network: Network, former: Network, count: int) -> None:
    """Give a network the first modules of another one that begins alike.

    Args:
        network: Gets them.
        former: Has them.
        count: How many blocks.
    """
    for step in former.steps()[:count]:
        for name in step.modules:
            network.set_submodule(name, former.get_submodule(name))


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
