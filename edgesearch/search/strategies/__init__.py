"""Ways to go through a search space."""

from collections.abc import Callable

from edgesearch.errors import SearchError
from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.strategies.evolution import EvolutionStrategy
from edgesearch.search.strategies.exhaustive import ExhaustiveStrategy
from edgesearch.search.strategies.protocol import Strategy
from edgesearch.search.strategies.random_strategy import RandomStrategy
from edgesearch.search.strategies.spread import SpreadStrategy
from edgesearch.search.strategies.surrogate import SurrogateStrategy
from edgesearch.search.strategies.tpe import TPEStrategy

BATCH = 8
"""Candidates that are proposed at a time. It is fixed, so that a search comes to the same however
many processes score them."""


def make_strategy(
    name: str,
    feasible: FeasibleSet,
    *,
    evaluations: int,
    population: int | None,
    seed: int,
    batch: int = BATCH,
) -> Strategy:
    """The strategy of a name.

    Where no more architectures are feasible than may be evaluated, all of them are. Evaluations are
    spread over the budgets if there are several.

    Args:
        name: "surrogate", "evolution", "tpe", "random" or "exhaustive".
        feasible: What it may propose.
        evaluations: How many architectures may be scored.
        population: Of the evolution; at most a quarter of the evaluations, which is the default.
        seed: Of everything random.
        batch: Architectures in each proposal.

    Raises:
        SearchError: More architectures are feasible than "exhaustive" may evaluate.
    """
    if name == "exhaustive" and len(feasible.indices) > evaluations:
        raise SearchError(
            f"at most {evaluations:,} feasible architectures (search.evaluations) for the strategy "
            "`exhaustive`",
            f"{len(feasible.indices):,}",
            "Set more search.evaluations, tighter search.budgets, or another strategy.",
        )
    if len(feasible.indices) <= evaluations:
        return ExhaustiveStrategy(feasible, batch)
    if name == "surrogate":
        return SurrogateStrategy(feasible, seed, batch)
    batch = max(1, min(batch, evaluations // len(feasible.parts)))  # each budget gets a turn
    quarter = max(1, evaluations // len(feasible.parts) // 4)
    kept = quarter if population is None else min(population, quarter)
    strategies: dict[str, Callable[[FeasibleSet], Strategy]] = {
        "evolution": lambda part: EvolutionStrategy(part, kept, seed, batch),
        "tpe": lambda part: TPEStrategy(part, seed, batch),
        "random": lambda part: RandomStrategy(part, seed, batch),
    }
    made = [strategies[name](part) for part in feasible.parts]
    return made[0] if len(made) == 1 else SpreadStrategy(made)


__all__ = [
    "BATCH",
    "EvolutionStrategy",
    "ExhaustiveStrategy",
    "RandomStrategy",
    "SpreadStrategy",
    "Strategy",
    "SurrogateStrategy",
    "TPEStrategy",
    "make_strategy",
]
