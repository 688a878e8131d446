"""What the command rank leaves behind for people: a table and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from devices.files import write_bytes
from edgesearch.evaluate.rank_correlation import RankCorrelation
from edgesearch.evaluate.rank_results import RankedSubnet


def write_csv(
    path: Path, subnets: Sequence[RankedSubnet], costs: Sequence[float], bins: Sequence[int]
) -> None:
    """A row for each subnet.

    Args:
        path: The file.
        subnets: The subnets, which all have the same scores.
        costs: What each costs, in the unit that bins are made by.
        bins: The bin of each.

    Raises:
        StageError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["architecture", "accuracy", "cost", "bin", *subnets[0].scores])
    for subnet, cost, number in zip(subnets, costs, bins, strict=True):
        scores = subnet.scores.values()
        writer.writerow([str(subnet.architecture), subnet.accuracy, cost, number, *scores])
    write_bytes(path, text.getvalue().encode())


def plot_ranking(
    path: Path,
    subnets: Sequence[RankedSubnet],
    bins: np.ndarray,
    correlations: Sequence[RankCorrelation],
    accuracy: str,
) -> None:
    """Agreement against accuracy, coloured by bin, and the tau of each score with its interval.

    Raises:
        StageError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    scatter, bars = figure.subplots(1, 2)
    agreements = np.array([subnet.scores["agreement"] for subnet in subnets])
    accuracies = np.array([subnet.accuracy for subnet in subnets])
    for number in np.unique(bins):
        chosen = bins == number
        scatter.plot(
            agreements[chosen], accuracies[chosen], "o", markersize=4, label=f"bin {number}"
        )
    scatter.set(xlabel="agreement", ylabel=f"{accuracy} accuracy", title=f"{len(subnets)} subnets")
    scatter.legend()
    names = [correlation.score for correlation in correlations]
    places = np.arange(len(names), dtype=float)
    for offset, label in ((-0.15, "tau"), (0.15, "within")):
        estimates = [getattr(correlation, label) for correlation in correlations]
        values = np.array([(e.low, e.value, e.high) for e in estimates])
        bars.hlines(places + offset, values[:, 0], values[:, 2], color="0.6")
        bars.plot(values[:, 1], places + offset, "o", markersize=4, label=label)
    bars.set_yticks(places, names)
    bars.invert_yaxis()
    bars.axvline(0, color="0.8")
    bars.set(xlabel=f"Kendall's tau with the {accuracy} accuracy", title="overall, within bins")
    bars.legend(loc="lower left")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_bytes(path, picture.getvalue())
