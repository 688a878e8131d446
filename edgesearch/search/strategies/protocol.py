"""What a search strategy is."""

from __future__ import annotations

from typing import Protocol

from edgesearch.space import Architecture


class Strategy(Protocol):
    """Proposes architectures and learns their scores, one after the other.

    A strategy is deterministic: with the same seed and scores it proposes the same. So a stopped
    search goes on by telling it the scores that are already known.
    """

    def ask(self) -> Architecture | None:
        """The next architecture to score, never one twice; None when there is none left."""

    def tell(self, architecture: Architecture, score: float) -> None:
        """The score of what was last asked for; higher is better."""

    def close(self) -> None:
        """Give up what the strategy holds; it is not asked again."""
