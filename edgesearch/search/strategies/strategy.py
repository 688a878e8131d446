"""The interface of search strategies, and the choice among them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from edgesearch.errors import SearchError
from edgesearch.search.feasible import FeasibleSet
from edgesearch.search.settings import SearchSettings
from edgesearch.search.strategies.nni_strategies import EvolutionStrategy, TPEStrategy
from edgesearch.search.strategies.surrogate import SurrogateStrategy
from edgesearch.space import Architecture


class Strategy(Protocol):
    """Proposes batches of architectures and learns their scores, one batch at a time.

    A strategy is deterministic: proposals depend only on seed and scores, not on the order or
    process of scoring. A stopped search therefore resumes by replaying the known scores.
    """

    def ask(self) -> tuple[Architecture, ...]:
        """The architectures to score next, each only once; empty if none are left."""

    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """The scores of the last batch; higher is better."""


def make_strategy(feasible: FeasibleSet, settings: SearchSettings, seed: int) -> Strategy:
    """Create the strategy that the settings name.

    If at most `evaluations` architectures are feasible, all of them are proposed. With several
    latency budgets, proposals alternate between them.

    Raises:
        SearchError: More architectures are feasible than "exhaustive" may evaluate, or NNI is not
            installed.
    """
    name, evaluations, batch = settings.strategy, settings.evaluations, settings.candidates_at_once
    if feasible.are_at_most(evaluations):
        return FixedStrategy(feasible, batch)
    if name == "exhaustive":
        raise SearchError(
            f"at most {evaluations:,} feasible architectures (search.evaluations) for the strategy "
            "`exhaustive`",
            str(feasible.count),
            "Set more search.evaluations, tighter search.budgets, or another strategy.",
        )
    if name == "surrogate":
        return SurrogateStrategy(feasible, seed, batch)
    share = evaluations // len(feasible.parts)
    batch = max(1, min(batch, share))  # each budget gets a turn
    quarter = max(1, share // 4)
    kept = min(settings.population or quarter, quarter)
    strategies: dict[str, Callable[[FeasibleSet], Strategy]] = {
        "evolution": lambda part: EvolutionStrategy(part, kept, seed, batch),
        "tpe": lambda part: TPEStrategy(part, seed, batch),
        "random": lambda part: FixedStrategy(part.in_random_order(seed), batch),
    }
    made = [strategies[name](part) for part in feasible.parts]
    return made[0] if len(made) == 1 else SpreadStrategy(made)


class FixedStrategy:
    """Proposes architectures in the given order, each once, in batches."""

    def __init__(self, architectures: Iterable[Architecture], batch: int) -> None:
        self._left, self._batch = iter(architectures), batch

    def ask(self) -> tuple[Architecture, ...]:
        """See `Strategy`."""
        return tuple(itertools.islice(self._left, self._batch))

    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """Ignore the scores."""


class SpreadStrategy:
    """Alternates between strategies, one per latency budget.

    If a strategy proposes an architecture that another one has had scored, it gets the known score.
    """

    def __init__(self, strategies: Sequence[Strategy]) -> None:
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
