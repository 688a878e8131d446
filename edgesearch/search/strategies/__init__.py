"""Ways to go through a search space."""

from collections.abc import Callable

from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.strategies.evolution import EvolutionStrategy
from edgesearch.search.strategies.exhaustive import ExhaustiveStrategy
from edgesearch.search.strategies.protocol import Strategy
from edgesearch.search.strategies.random_strategy import RandomStrategy


def make_strategy(
    name: str, feasible: FeasibleSet, *, evaluations: int, population: int | None, seed: int
) -> Strategy:
    """The strategy of a name.

    Where no more architectures are feasible than may be evaluated, all of them are.

    Args:
        name: "evolution" or "random".
        feasible: What it may propose.
        evaluations: How often it will be asked.
        population: Of the evolution; at most a quarter of the evaluations, which is the default.
        seed: Of everything random.
    """
    if len(feasible.indices) <= evaluations:
        return ExhaustiveStrategy(feasible)
    quarter = max(1, evaluations // 4)
    kept = quarter if population is None else min(population, quarter)
    strategies: dict[str, Callable[[], Strategy]] = {
        "evolution": lambda: EvolutionStrategy(feasible, kept, seed),
        "random": lambda: RandomStrategy(feasible, seed),
    }
    return strategies[name]()


__all__ = [
    "EvolutionStrategy",
    "ExhaustiveStrategy",
    "RandomStrategy",
    "Strategy",
    "make_strategy",
]
