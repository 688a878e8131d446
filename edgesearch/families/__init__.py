"""Families of networks, each in a package of its own, and their spaces by name."""

from edgesearch.families.load_space import FAMILIES, known_spaces, load_space, space_from_dict

__all__ = ["FAMILIES", "known_spaces", "load_space", "space_from_dict"]
