"""Few networks that together contain many blocks."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from edgesearch.space.block import Block
from edgesearch.space.search_space import SearchSpace

Chain = tuple[Block, ...]


def covering_networks(space: SearchSpace, resolution: int, keys: Collection[str]) -> list[Chain]:
    """Networks (as blocks in order) that contain every given block of a resolution in pixels.

    A greedy set cover. Runs of equal blocks are shortened to one block, so a network need not
    belong to the space.
    """
    wanted = {block.key for block in space.distinct_blocks(resolution)} & set(keys)
    networks = []
    while wanted:
        network = _best_network(space, resolution, wanted)
        networks.append(network)
        wanted -= {block.key for block in network}
    return networks


def _best_network(space: SearchSpace, resolution: int, wanted: set[str]) -> Chain:
    """The network with the most wanted blocks, by dynamic programming over the parts.

    The state after a part is the setting of the choices that later parts depend on.
    """
    best: dict[tuple[tuple[str, int], ...], tuple[Chain, set[str]]] = {(): ((), set())}
    for number, part in enumerate(space.parts, 1):
        later = {name for following in space.parts[number:] for name in following.choices}
        found: dict[tuple[tuple[str, int], ...], tuple[Chain, set[str]]] = {}
        for known, (chain, held) in best.items():
            new = [name for name in part.choices if name not in dict(known)]
            for values in itertools.product(*(space.choices[name] for name in new)):
                chosen = {**dict(known), **dict(zip(new, values, strict=True))}
                blocks = part.blocks(resolution, *(chosen[name] for name in part.choices))
                own = tuple(block for block, _ in itertools.groupby(blocks))
                holds = held | ({block.key for block in own} & wanted)
                state = tuple(item for item in chosen.items() if item[0] in later)
                if state not in found or len(holds) > len(found[state][1]):
                    found[state] = (chain + own, holds)
        best = found
    ((chain, _),) = best.values()
    return chain
