"""Pictures of results."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.files import write_bytes


@dataclass(frozen=True)
class TrialsPlot:
    """The trials of a search, as seen on one device; points are (predicted ms, agreement).

    Attributes:
        device: Name of the device.
        trials: All that were scored.
        front: Those that no other beats, fastest first.
        winners: Those that were chosen.
        budgets_ms: Upper bounds on the latency.
    """

    device: str
    trials: Sequence[tuple[float, float]]
    front: Sequence[tuple[float, float]]
    winners: Sequence[tuple[float, float]]
    budgets_ms: Sequence[float]


def plot_trials(path: Path, plots: Sequence[TrialsPlot]) -> None:
    """Draw agreement against latency: trials, front, winners and budgets, for each device.

    Args:
        path: The PNG file.
        plots: One for each device.

    Raises:
        StageError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(plots), 4.5), layout="constrained")
    for axes, plot in zip(figure.subplots(1, len(plots), squeeze=False)[0], plots, strict=True):
        axes.plot(*zip(*plot.trials, strict=True), "o", color="0.7", markersize=4, label="trials")
        axes.step(*zip(*plot.front, strict=True), "-", where="post", label="Pareto front")
        axes.plot(*zip(*plot.winners, strict=True), "*", markersize=13, label="winners")
        slowest = max(latency_ms for latency_ms, _ in plot.trials)
        for budget_ms in plot.budgets_ms:
            if budget_ms <= 2 * slowest:  # one far beyond would squeeze all the rest
                axes.axvline(budget_ms, linestyle="--", color="0.4", label="budget")
        handles, labels = axes.get_legend_handles_labels()
        shown = dict(zip(labels, handles, strict=True))  # several budgets, one entry
        axes.legend(shown.values(), shown.keys())
        axes.set(xlabel=f"predicted median on {plot.device} (ms)", ylabel="agreement")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_bytes(path, picture.getvalue())
