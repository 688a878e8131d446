"""A search: its trials on each device, finished or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgesearch.inputs import read_json
from edgesearch.report.choice_effects import ChoiceEffect, choice_effects
from edgesearch.report.device_facts import DeviceFacts
from edgesearch.run.context import RunContext
from edgesearch.run.stage import read_record
from edgesearch.search.pareto import pareto_front
from edgesearch.search.settings import Range
from edgesearch.search.training_doubt import TrainingCheck
from edgesearch.search.trial_log import Trial, read_trials
from edgesearch.search.winners import Winners
from edgesearch.space import Architecture


@dataclass(frozen=True)
class SearchFacts:
    """The trials of a search.

    Attributes:
        finished: Whether the search came to its end.
        wanted: Number of candidates to score.
        trials: Highest agreement first.
        latencies_ms: Predicted medians of the trials by device.
        fronts: Places in `trials` of each device's Pareto front, fastest first.
        budgets_ms: Budgets of the median by device.
        bounds: All budgets in words; empty for an unfinished search.
        feasible: Number of architectures within the budgets; None for an unfinished search.
        estimated: Whether that number is an estimate.
        settled: Whether the order of the best is certain; None for an unfinished search.
        images: Images of the last comparison; None for an unfinished search.
        training_doubt: Why the supernet seems hardly trained; empty otherwise.
    """

    finished: bool
    wanted: int
    trials: tuple[Trial, ...]
    latencies_ms: dict[str, list[float]]
    fronts: dict[str, list[int]]
    budgets_ms: dict[str, list[float]]
    effects: tuple[ChoiceEffect, ...]
    bounds: tuple[str, ...] = ()
    feasible: int | None = None
    estimated: bool = False
    settled: bool | None = None
    images: int | None = None
    training_doubt: str = ""


def read_search(
    run: RunContext, devices: Mapping[str, DeviceFacts], winners: Winners | None
) -> SearchFacts | None:
    """What a search has found so far; None if it has no trials.

    Raises:
        UserError: A file is damaged.
    """
    files = run.files.search
    if not files.trials.exists():
        return None
    found = sorted(read_trials(files.trials, run.space), key=lambda trial: -trial.agreement)
    if not found:
        return None
    record = read_record(files.folder) or {"finished": False, "settings": {}}
    own = record["settings"].get("device", {}).get("name", run.device.name)
    latencies_ms = _latencies_ms(run, devices, found, own)
    facts = SearchFacts(
        finished=bool(record["finished"]),
        wanted=run.config.search.evaluations,
        trials=tuple(found),
        latencies_ms=latencies_ms,
        fronts={name: _front(found, values) for name, values in latencies_ms.items()},
        budgets_ms={name: _budgets_ms(run, devices, winners, name) for name in latencies_ms},
        effects=choice_effects(found),
    )
    if not facts.finished:
        return facts
    pareto, ranking = (read_json(path, "search") for path in (files.pareto, files.ranking))
    return replace(
        facts,
        bounds=tuple(pareto["bounds"]),
        feasible=pareto["feasible"],
        estimated=pareto["estimated_from"] is not None,
        settled=ranking["settled"],
        images=ranking["images"],
        training_doubt=TrainingCheck(**read_json(files.training, "search")).doubt,
    )


def _latencies_ms(
    run: RunContext, devices: Mapping[str, DeviceFacts], trials: Sequence[Trial], own: str
) -> dict[str, list[float]]:
    """By the log on the device `own` of the search, by their tables on others."""
    found = {own: [trial.latency_ms for trial in trials]}
    digits = run.space.to_digits([trial.architecture for trial in trials])
    for name, device in devices.items():
        if name != own and device.model is not None:
            found[name] = device.model.predict_all(digits).tolist()
    return found


def _front(trials: Sequence[Trial], latencies_ms: Sequence[float]) -> list[int]:
    on_device = [
        replace(trial, latency_ms=latency_ms)
        for trial, latency_ms in zip(trials, latencies_ms, strict=True)
        if np.isfinite(latency_ms)
    ]
    places: dict[Architecture, int] = {t.architecture: place for place, t in enumerate(trials)}
    return [places[trial.architecture] for trial in pareto_front(on_device)]


def _budgets_ms(
    run: RunContext, devices: Mapping[str, DeviceFacts], winners: Winners | None, name: str
) -> list[float]:
    """Upper bounds of the median: those that the winners were chosen for, or as configured."""
    if winners is not None:
        figures: list[dict[str, Any]] = [each.latency_ms.get(name, {}) for each in winners.winners]
        bounds = [each.get("budget") for each in figures]
    else:
        budgets = run.config.search.budgets
        own = devices.get(run.device.name)
        if budgets.latency_of_largest is not None and own is not None and own.model is not None:
            largest_ms = own.model.predict(run.space.largest).median_ms
            budgets = budgets.with_largest(largest_ms)
        key = "latency_ms" if name == run.device.name else f"devices.{name}.latency_ms"
        bounds = [part.ranges().get(key, Range()).max for part in budgets.each()]
    return [*dict.fromkeys(bound for bound in bounds if bound is not None)]
