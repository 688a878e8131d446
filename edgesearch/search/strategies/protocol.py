"""What a search strategy is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from edgesearch.space import Architecture


class Strategy(Protocol):
    """Proposes batches of architectures and learns their scores, one batch after the other.

    A strategy is deterministic: with the same seed and scores it proposes the same, in whatever
    order or process the architectures of a batch are scored. So a stopped search goes on by telling
    it the scores that are already known.
    """

    def ask(self) -> tuple[Architecture, ...]:
        """The architectures to score next, none twice; none at all when there is none left."""

    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """The score of each that was last asked for; higher is better."""

    def close(self) -> None:
        """Give up what the strategy holds; it is not asked again."""
