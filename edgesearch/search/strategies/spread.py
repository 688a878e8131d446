"""One strategy for each budget, asked in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgesearch.search.strategies.protocol import Strategy
from edgesearch.space import Architecture


class SpreadStrategy:
    """Spreads the proposals over several strategies, which learn the scores of what they propose.

    What one proposes and another has had scored before is answered at once.

    Args:
        strategies: The strategies.
    """

    def __init__(self, strategies: Sequence[Strategy]) -> None:
        self._strategies = strategies
        self._left = list(strategies)
        self._scores: dict[Architecture, float] = {}
        self._pending: tuple[Strategy, tuple[Architecture, ...]] | None = None

    def ask(self) -> tuple[Architecture, ...]:
        """See `Strategy`."""
        while self._left:
            strategy = self._left.pop(0)
            proposals = strategy.ask()
            if not proposals:
                continue
            self._left.append(strategy)
            new = tuple(proposal for proposal in proposals if proposal not in self._scores)
            if new:
                self._pending = strategy, proposals
                return new
            strategy.tell({proposal: self._scores[proposal] for proposal in proposals})
        return ()

    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """See `Strategy`."""
        self._scores.update(scores)
        if self._pending is not None:
            strategy, proposals = self._pending
            strategy.tell({proposal: self._scores[proposal] for proposal in proposals})
            self._pending = None

    def close(self) -> None:
        """Close them all."""
        for strategy in self._strategies:
            strategy.close()
