"""Every feasible architecture, where there are few."""

from __future__ import annotations

from edgesearch.search.constraints import FeasibleSet
from edgesearch.space import Architecture


class ExhaustiveStrategy:
    """Proposes each feasible architecture once, in the order of their numbers.

    Args:
        feasible: What it goes through.
    """

    def __init__(self, feasible: FeasibleSet) -> None:
        self._proposals = (feasible.space.architecture(int(i)) for i in feasible.indices)

    def ask(self) -> Architecture | None:
        """See `Strategy`."""
        return next(self._proposals, None)

    def tell(self, architecture: Architecture, score: float) -> None:
        """Scores teach it nothing."""

    def close(self) -> None:
        """Nothing to give up."""
