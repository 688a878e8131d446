"""Results of `edgesearch rank`: subnets.jsonl, a CSV table and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from devices.files import JsonLines, write_bytes
from edgesearch.evaluate.rank_correlation import RankCorrelation
from edgesearch.pictures import picture
from edgesearch.space import Architecture, SearchSpace


@dataclass(frozen=True)
class RankedSubnet:
    """A subnet with its test accuracy in 0 … 1 and its scores by name (higher is better)."""

    architecture: Architecture
    accuracy: float
    scores: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**vars(self), "architecture": dict(self.architecture)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], space: SearchSpace) -> RankedSubnet:
        """Inverse of `to_dict`."""
        architecture = space.from_choices(values["architecture"])
        return cls(architecture, float(values["accuracy"]), dict(values["scores"]))


class RankedSubnets:
    """The subnets in a file of JSON lines, which may exist; a kill loses at most one line.

    Without `cut`, a torn last line stays in the file, and nothing may be added.
    """

    def __init__(self, path: Path, space: SearchSpace, *, cut: bool = True) -> None:
        self.path = path
        self.subnets: dict[Architecture, RankedSubnet] = {}
        self._lines = JsonLines(
            path, "subnets that `edgesearch rank` wrote", "Move the file away to rank again."
        )
        for number, values in self._lines.read(cut=cut) if path.exists() else []:
            with self._lines.line(number):
                subnet = RankedSubnet.from_dict(values, space)
            self.subnets[subnet.architecture] = subnet

    def add(self, subnet: RankedSubnet) -> None:
        """Append a subnet; the line is on disk when this returns."""
        self.subnets[subnet.architecture] = subnet
        self._lines.append(subnet.to_dict())


def write_csv(
    path: Path, subnets: Sequence[RankedSubnet], costs: Sequence[float], bins: Sequence[int]
) -> None:
    """Write one row per subnet, with its cost and bin."""
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
    """Plot agreement against accuracy by bin, and the tau of each score with its interval."""
    with picture(path, 11, 5) as figure:
        scatter, bars = figure.subplots(1, 2)
        agreements = np.array([subnet.scores["agreement"] for subnet in subnets])
        accuracies = np.array([subnet.accuracy for subnet in subnets])
        for number in np.unique(bins):
            chosen = bins == number
            scatter.plot(
                agreements[chosen], accuracies[chosen], "o", markersize=4, label=f"bin {number}"
            )
        scatter.set(
            xlabel="agreement", ylabel=f"{accuracy} accuracy", title=f"{len(subnets)} subnets"
        )
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
