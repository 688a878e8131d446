"""How many architectures of a space are of some kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesearch.space import search_space
from edgesearch.space.search_space import SearchSpace

DRAWN = 20_000
"""Architectures that are drawn to estimate from, in a space too large to be laid out."""


@dataclass(frozen=True)
class Count:
    """A number of architectures: exact, or estimated from some that were drawn uniformly.

    Attributes:
        number: How many.
        size: Size of the space.
        drawn: How many were drawn; None if all were looked at.
    """

    number: int
    size: int
    drawn: int | None = None

    @classmethod
    def of(cls, space: SearchSpace, mask: np.ndarray) -> Count:
        """The count of what is true.

        Args:
            space: The space.
            mask: (n,) for all architectures, or for those that `drawn_digits` gives.
        """
        found = int(mask.sum())
        if is_laid_out(space):
            return cls(found, space.size)
        return cls(found * space.size // len(mask), space.size, len(mask))

    def __str__(self) -> str:
        """`62 of 432`, `about 3.1e+11 of 7.2e+12 (estimated from 20,000 drawn)`."""
        if self.drawn is None:
            return f"{self.number:,} of {self.size:,}"
        if not self.number:
            most = 3 * self.size / self.drawn  # with 95 % confidence
            return f"fewer than {most:.1e} of {self.size:.1e} (none of {self.drawn:,} drawn)"
        return f"about {self.number:.1e} of {self.size:.1e} (estimated from {self.drawn:,} drawn)"


def is_laid_out(space: SearchSpace) -> bool:
    """Whether the space is small enough for arrays over all of its architectures."""
    return space.size <= search_space.LIMIT


def drawn_digits(space: SearchSpace) -> np.ndarray | None:
    """Digits (n, d) that stand for a large space, always the same; None for a smaller one."""
    if is_laid_out(space):
        return None
    return space.draw(DRAWN, np.random.default_rng(int(space.space_hash, 16)))
