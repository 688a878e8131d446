"""The interface of a search space, and what is true of all spaces.

A family of networks (`edgesearch.families`) declares its choices and its parts; numbering,
sampling, sums over blocks and covering networks follow from them. `edgesearch.space.network` is
the interface of the networks themselves; it needs torch and is not imported here.
"""

from edgesearch.space.architecture import Architecture
from edgesearch.space.block import Block, Part
from edgesearch.space.cover import covering_networks
from edgesearch.space.search_space import SearchSpace

__all__ = ["Architecture", "Block", "Part", "SearchSpace", "covering_networks"]
