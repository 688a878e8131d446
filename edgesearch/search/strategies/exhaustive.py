"""Every feasible architecture, where there are few."""

from __future__ import annotations

from collections.abc import Mapping

from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.strategies.fixed_order import FixedOrder
from edgesearch.space import Architecture


class ExhaustiveStrategy:
    """Proposes each feasible architecture once, in the order of their numbers.

    Args:
        feasible: What it goes through.
        batch: Architectures in each proposal.
    """

    def __init__(self, feasible: FeasibleSet, batch: int) -> None:
        self._left = FixedOrder(feasible.space, feasible.indices, batch)

    def ask(self) -> tuple[Architecture, ...]:
        """See `Strategy`."""
        return self._left.next_batch()

    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """Scores teach it nothing."""

    def close(self) -> None:
        """Nothing to give up."""
