"""What can be built: architectures, search spaces, and the blocks that they are made of."""

from edgesearch.space.architecture import Architecture
from edgesearch.space.block import Block
from edgesearch.space.cover import covering_networks
from edgesearch.space.find_architecture import find_architecture
from edgesearch.space.load_space import SearchSpace, known_spaces, load_space, space_from_dict
from edgesearch.space.resnet_space import ResNetSpace

__all__ = [
    "Architecture",
    "Block",
    "ResNetSpace",
    "SearchSpace",
    "covering_networks",
    "find_architecture",
    "known_spaces",
    "load_space",
    "space_from_dict",
]
