"""A few networks that together hold many blocks."""

from __future__ import annotations

from collections.abc import Collection

from edgesearch.space.block import Block
from edgesearch.space.load_space import SearchSpace

Chain = tuple[Block, ...]


def covering_networks(space: SearchSpace, resolution: int, keys: Collection[str]) -> list[Chain]:
    """Networks in which every wanted block of a resolution occurs.

    Each stage has at most two blocks, so a network need not belong to the space. One network
    after the other is chosen to hold as many blocks as possible that are still missing.

    Args:
        space: Where the blocks are from.
        resolution: Of the input, in pixels.
        keys: Of the wanted blocks.

    Returns:
        For each network its blocks from stem to head.
    """
    wanted = {block.key for block in space.distinct_blocks(resolution)} & set(keys)
    networks = []
    while wanted:
        network = _best_network(space, resolution, wanted)
        networks.append(network)
        wanted -= {block.key for block in network}
    return networks


def _best_network(space: SearchSpace, resolution: int, wanted: set[str]) -> Chain:
    """The network with the most wanted blocks, by dynamic programming over the stages."""

    def gain(chain: Chain) -> int:
        return len({block.key for block in chain} & wanted)

    best: list[Chain] = [(space.stem_block(width, resolution),) for width in space.stem_widths]
    for stage, widths in enumerate(space.stage_widths):
        depth = min(2, max(space.stage_depths[stage]))
        best = [
            max(
                (
                    chain
                    + space.stage_blocks(
                        stage, chain[-1].out_channels, width, depth, chain[-1].out_hw
                    )
                    for chain in best
                ),
                key=gain,
            )
            for width in widths
        ]
    whole = [(*chain, space.head_block(chain[-1])) for chain in best]
    return max(whole, key=gain)
