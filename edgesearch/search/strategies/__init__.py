"""Ways to go through a search space."""

from collections.abc import Callable

from edgesearch.errors import SearchError
from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.settings import SearchSettings
from edgesearch.search.strategies.evolution import EvolutionStrategy
from edgesearch.search.strategies.exhaustive import ExhaustiveStrategy
from edgesearch.search.strategies.protocol import Strategy
from edgesearch.search.strategies.random_strategy import RandomStrategy
from edgesearch.search.strategies.spread import SpreadStrategy
from edgesearch.search.strategies.surrogate import SurrogateStrategy
from edgesearch.search.strategies.tpe import TPEStrategy


def make_strategy(feasible: FeasibleSet, settings: SearchSettings, seed: int) -> Strategy:
    """The strategy that the settings name.

    Where no more architectures are feasible than may be evaluated, all of them are. Evaluations are
    spread over the budgets if there are several.

    Args:
        feasible: What it may propose.
        settings: strategy, evaluations, population (of the evolution; at most a quarter of the
            evaluations, which is the default) and candidates_at_once.
        seed: Of everything random.

    Raises:
        SearchError: More architectures are feasible than "exhaustive" may evaluate.
    """
    name, evaluations, batch = settings.strategy, settings.evaluations, settings.candidates_at_once
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
    kept = quarter if settings.population is None else min(settings.population, quarter)
    strategies: dict[str, Callable[[FeasibleSet], Strategy]] = {
        "evolution": lambda part: EvolutionStrategy(part, kept, seed, batch),
        "tpe": lambda part: TPEStrategy(part, seed, batch),
        "random": lambda part: RandomStrategy(part, seed, batch),
    }
    made = [strategies[name](part) for part in feasible.parts]
    return made[0] if len(made) == 1 else SpreadStrategy(made)


__all__ = [
    "EvolutionStrategy",
    "ExhaustiveStrategy",
    "RandomStrategy",
    "SpreadStrategy",
    "Strategy",
    "SurrogateStrategy",
    "TPEStrategy",
    "make_strategy",
]
