"""Uniform random search."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgesearch.search.constraints import FeasibleSet
from edgesearch.space import Architecture


class RandomStrategy:
    """Draws from the feasible architectures, each with the same probability, none twice.

    Args:
        feasible: What it draws from.
        seed: Of the order.
    """

    def __init__(self, feasible: FeasibleSet, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(feasible.indices)
        self._proposals: Iterator[Architecture] = (
            feasible.space.architecture(int(index)) for index in order
        )

    def ask(self) -> Architecture | None:
        """See `Strategy`."""
        return next(self._proposals, None)

    def tell(self, architecture: Architecture, score: float) -> None:
        """Scores teach it nothing."""

    def close(self) -> None:
        """Nothing to give up."""
