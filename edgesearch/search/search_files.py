"""What a search writes: winners and reserves, the Pareto front of each device, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from devices.files import write_json
from edgesearch.latency.budgets import MEDIAN, P95
from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.files import SearchFiles
from edgesearch.search.plots import TrialsPlot, plot_trials
from edgesearch.search.ranking import Ranking
from edgesearch.search.scoring import Ranked
from edgesearch.search.search import pareto_front
from edgesearch.search.trial_log import Trial
from edgesearch.search.winners import Winner, Winners, from_trial


def choose_winners(
    feasible: FeasibleSet, ranked: Sequence[Ranked], device: str, winners: int, reserves: int
) -> Winners:
    """The best trials within each budget, and those that are next in rank.

    Args:
        feasible: Has the budgets and the costs.
        ranked: The trials within each budget.
        device: The device that winners are measured on.
        winners: How many to choose for each budget.
        reserves: How many to keep for each budget.
    """
    chosen: list[Winner] = []
    kept: list[Winner] = []
    for part, (trials, ranking) in zip(feasible.parts, ranked, strict=True):
        for letter, among, group in (
            ("w", trials[:winners], chosen),
            ("r", trials[winners : winners + reserves], kept),
        ):
            for trial in among:
                winner = _winner(f"{letter}{len(group)}", trial, part, device)
                group.append(_with_interval(winner, ranking))
    space = feasible.space
    return Winners(space.name, space.space_hash, tuple(chosen), tuple(kept))


def _with_interval(winner: Winner, ranking: Ranking) -> Winner:
    """A winner with the interval of its agreement, and the number of images."""
    (own,) = (leader for leader in ranking.leaders if leader.architecture == winner.architecture)
    return replace(
        winner,
        agreement_interval=(own.agreement.low, own.agreement.high),
        agreement_images=ranking.images,
    )


def _winner(name: str, trial: Trial, part: FeasibleSet, device: str) -> Winner:
    winner = from_trial(
        name,
        trial,
        device,
        predicted_p95_ms=part.cost("latency_p95_ms", trial.architecture),
        budgets=part.budgets,
    )
    for other in part.budgets.devices:
        figures = {
            MEDIAN.predicted: part.cost(f"devices.{other}.latency_ms", trial.architecture),
            P95.predicted: part.cost(f"devices.{other}.latency_p95_ms", trial.architecture),
            MEDIAN.budget: part.upper(f"devices.{other}.latency_ms"),
            P95.budget: part.upper(f"devices.{other}.latency_p95_ms"),
        }
        winner = winner.with_latency(other, **figures)
    return winner


def write_search(
    files: SearchFiles,
    feasible: FeasibleSet,
    trials: Sequence[Trial],
    chosen: Winners,
    device: str,
) -> None:
    """Write `pareto.json`, `pareto.png` and `chosen.json`.

    Front and picture show what all trials were scored with, on the same images; the winners' own
    figures may be of more.

    Args:
        files: Where they are.
        feasible: Has the budgets and the costs.
        trials: All of the search.
        chosen: Winners and reserves.
        device: The device that they are measured on.

    Raises:
        StageError: A file cannot be written.
    """
    budgets = feasible.budgets.model_dump(mode="json")
    scored = {trial.architecture: trial.agreement for trial in trials}
    further = list(feasible.budgets.devices)
    keys = {device: "latency_ms", **{name: f"devices.{name}.latency_ms" for name in further}}
    on_device = {
        name: [replace(t, latency_ms=feasible.cost(key, t.architecture)) for t in trials]
        for name, key in keys.items()
    }
    fronts = {name: pareto_front(seen) for name, seen in on_device.items()}
    write_json(
        files.pareto,
        {
            "device": device,
            "feasible": len(feasible.indices),
            "cannot_run": feasible.cannot_run,
            "latency_budget_ms": budgets["latency_ms"],
            "latency_p95_budget_ms": budgets["latency_p95_ms"],
            "budgets": budgets,
            "fronts": {
                name: [_with_bytes(trial, feasible) for trial in front]
                for name, front in fronts.items()
            },
        },
    )
    plots = [
        TrialsPlot(
            device=name,
            trials=_points(on_device[name]),
            front=_points(front),
            winners=[
                (w.latency_ms[name]["predicted"], scored[w.architecture]) for w in chosen.winners
            ],
            budgets_ms=[
                most for part in feasible.parts if (most := part.upper(keys[name])) is not None
            ],
        )
        for name, front in fronts.items()
    ]
    plot_trials(files.pareto_plot, plots)
    chosen.save(files.chosen)


def _points(trials: Sequence[Trial]) -> list[tuple[float, float]]:
    return [(trial.latency_ms, trial.agreement) for trial in trials]


def _with_bytes(trial: Trial, feasible: FeasibleSet) -> dict[str, Any]:
    names = ("activation_bytes", "weight_bytes")
    return trial.to_dict() | {name: feasible.cost(name, trial.architecture) for name in names}
