"""Uniform random search."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.strategies.fixed_order import FixedOrder
from edgesearch.space import Architecture


class RandomStrategy:
    """Draws from the feasible architectures, each with the same probability, none twice.

    Args:
        feasible: What it draws from.
        seed: Of the order.
        batch: Architectures in each proposal.
    """

    def __init__(self, feasible: FeasibleSet, seed: int, batch: int) -> None:
        order = np.random.default_rng(seed).permutation(feasible.indices)
        self._left = FixedOrder(feasible.space, order, batch)

    def ask(self) -> tuple[Architecture, ...]:
        """See `Strategy`."""
        return self._left.next_batch()

    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """Scores teach it nothing."""

    def close(self) -> None:
        """Nothing to give up."""
