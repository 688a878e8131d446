"""The interface of search spaces, and everything that follows from it for all families.

A family of networks (`edgesearch.families`) declares its choices and parts; numbering, sampling,
sums over blocks and covering networks follow from them. `edgesearch.space.network`, the interface
of the networks themselves, needs torch and is not imported here.
"""

from edgesearch.space.architecture import Architecture
from edgesearch.space.block import Block, Part
from edgesearch.space.cover import covering_networks
from edgesearch.space.search_space import SearchSpace

__all__ = ["Architecture", "Block", "Part", "SearchSpace", "covering_networks"]
