"""The Pareto front of a search on each device, as JSON and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from devices.files import write_json
from edgesearch.pictures import picture
from edgesearch.search.feasible import FeasibleSet
from edgesearch.search.files import SearchFiles
from edgesearch.search.trial_log import Trial
from edgesearch.search.winners import Winners


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """The trials not dominated in agreement and latency, fastest first."""
    front: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (t.latency_ms, -t.agreement)):
        if not front or trial.agreement > front[-1].agreement:
            front.append(trial)
    return front


def write_pareto(
    files: SearchFiles, feasible: FeasibleSet, trials: Sequence[Trial], winners: Winners
) -> None:
    """Write and plot the front on each device, with the number of feasible architectures.

    All trials are shown with their agreement on the same images; the winners' own agreement may be
    from more images.

    Raises:
        FileError: A file cannot be written.
    """
    seen = {
        device: [replace(t, latency_ms=feasible.cost(name, t.architecture)) for t in trials]
        for device, name in feasible.costs.latencies.items()
    }
    fronts = {device: pareto_front(on_device) for device, on_device in seen.items()}
    in_bytes = ("activation_bytes", "weight_bytes")
    budgets = feasible.budgets.model_dump(mode="json")
    write_json(
        files.pareto,
        {
            "device": feasible.costs.device.name,
            "feasible": feasible.count.number,
            "feasible_each": [part.count.number for part in feasible.parts],
            "cannot_run": feasible.cannot_run.number,
            "estimated_from": feasible.count.drawn,
            "latency_budget_ms": budgets["latency_ms"],
            "latency_p95_budget_ms": budgets["latency_p95_ms"],
            "budgets": budgets,
            "bounds": feasible.budgets.words(),
            "fronts": {
                device: [
                    t.to_dict() | {name: feasible.cost(name, t.architecture) for name in in_bytes}
                    for t in front
                ]
                for device, front in fronts.items()
            },
        },
    )
    _draw(files, feasible, seen, winners)


def _draw(
    files: SearchFiles, feasible: FeasibleSet, seen: dict[str, list[Trial]], winners: Winners
) -> None:
    """Plot agreement against latency: trials, front, winners and budgets, for each device."""

    def points(trials: Sequence[Trial]) -> list[list[float]]:
        return [[t.latency_ms for t in trials], [t.agreement for t in trials]]

    chosen = winners.architectures.values()
    with picture(files.pareto_plot, 6 * len(seen), 4.5) as figure:
        for axes, (device, trials) in zip(
            figure.subplots(1, len(seen), squeeze=False)[0], seen.items(), strict=True
        ):
            won = [next(t for t in trials if t.architecture == each) for each in chosen]
            axes.plot(*points(trials), "o", color="0.7", markersize=4, label="trials")
            axes.step(*points(pareto_front(trials)), "-", where="post", label="Pareto front")
            axes.plot(*points(won), "*", markersize=13, label="winners")
            slowest = max(trial.latency_ms for trial in trials)
            bounds = [part.upper(feasible.costs.latencies[device]) for part in feasible.parts]
            for most in bounds:
                if (
                    most is not None and most <= 2 * slowest
                ):  # a far larger one would compress the plot
                    axes.axvline(most, linestyle="--", color="0.4", label="budget")
            handles, labels = axes.get_legend_handles_labels()
            shown = dict(zip(labels, handles, strict=True))  # one entry for several budgets
            axes.legend(shown.values(), shown.keys())
            axes.set(xlabel=f"predicted median on {device} (ms)", ylabel="agreement")
