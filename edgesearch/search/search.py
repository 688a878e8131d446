"""The search: ask a strategy, score, keep, tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.strategies import Strategy
from edgesearch.search.trial_log import Trial, TrialLog
from edgesearch.space import Architecture


def run_search(
    feasible: FeasibleSet,
    strategy: Strategy,
    scores_of: Callable[[Sequence[Architecture]], Iterable[float]],
    log: TrialLog,
    evaluations: int,
    on_trial: Callable[[int, Trial], None] | None = None,
) -> list[Trial]:
    """Score what the strategy proposes; what the log knows is not scored again.

    Architectures of a batch that begin alike are scored one after the other.

    Args:
        feasible: Has the costs of each architecture.
        strategy: Proposes feasible architectures.
        scores_of: The agreements of some architectures, in their order; higher is better.
        log: Gets every trial as soon as it is scored.
        evaluations: How many trials to make at most.
        on_trial: Called with the number of each trial, from 1 on, and the trial.

    Returns:
        The trials, best first.
    """
    trials: list[Trial] = []
    try:
        while (left := evaluations - len(trials)) and (proposals := strategy.ask()):
            scores = {}
            batch = feasible.space.by_beginning(proposals[:left])
            new = iter(scores_of([each for each in batch if each not in log.trials]))
            for architecture in batch:
                known = log.trials.get(architecture)
                trial = Trial(
                    architecture=architecture,
                    agreement=next(new) if known is None else known.agreement,
                    latency_ms=feasible.cost("latency_ms", architecture),
                    macs=feasible.cost("macs", architecture),
                    params=feasible.cost("params", architecture),
                )
                if known is None:
                    log.add(trial)
                trials.append(trial)
                scores[architecture] = trial.agreement
                if on_trial:
                    on_trial(len(trials), trial)
            if len(scores) == len(proposals):
                strategy.tell(scores)
    finally:
        strategy.close()
    return sorted(trials, key=lambda trial: -trial.agreement)


def pareto_front(trials: list[Trial]) -> list[Trial]:
    """The trials that no other beats in both agreement and latency, fastest first."""
    front: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (t.latency_ms, -t.agreement)):
        if not front or trial.agreement > front[-1].agreement:
            front.append(trial)
    return front
