"""Exact and estimated numbers of architectures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesearch.space import search_space
from edgesearch.space.search_space import SearchSpace

DRAWN = 20_000
"""Sample size of the estimates for spaces that are not enumerable."""


@dataclass(frozen=True)
class Count:
    """A number of architectures in a space of `size`.

    Exact if `drawn` is None, otherwise estimated from that many uniform samples.
    """

    number: int
    size: int
    drawn: int | None = None

    @classmethod
    def of(cls, space: SearchSpace, mask: np.ndarray) -> Count:
        """Count a mask (n,) over all architectures, or over those of `drawn_digits`."""
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
    """Whether the space is small enough for arrays over all its architectures."""
    return space.size <= search_space.LIMIT


def drawn_digits(space: SearchSpace) -> np.ndarray | None:
    """A fixed sample (n, d) of a space too large for such arrays; None for others."""
    if is_laid_out(space):
        return None
    return space.draw(DRAWN, np.random.default_rng(int(space.space_hash, 16)))
