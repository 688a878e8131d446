"""Latency budgets of winners, compared with predictions and measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgesearch.latency.latency_model import LatencyPrediction
from profilers import LatencyTable


@dataclass(frozen=True)
class BoundedFigure:
    """A latency statistic that may have a budget, with the keys of its figures in winners.json."""

    statistic: str
    predicted: str
    budget: str
    measured: str
    interval: str


MEDIAN = BoundedFigure("median", "predicted", "budget", "measured_p50", "interval")
P95 = BoundedFigure(
    "95th percentile", "predicted_p95", "budget_p95", "measured_p95", "interval_p95"
)


def predicted_figures(prediction: LatencyPrediction) -> dict[str, float]:
    """A prediction, as stored in winners.json."""
    return {MEDIAN.predicted: prediction.median_ms, P95.predicted: prediction.p95_ms}


def measured_figures(table: LatencyTable, key: str) -> dict[str, Any]:
    """The measurements of a key, as stored in winners.json."""
    return {
        MEDIAN.measured: table.median_ms(key),
        MEDIAN.interval: list(table.median_interval_ms(key)),
        P95.measured: table.percentile_ms(key, 95),
        P95.interval: list(table.percentile_interval_ms(key, 95)),
    }


def fits_as_predicted(figures: Mapping[str, Any]) -> bool:
    """Whether the predictions are within the budgets."""
    return all(figures[kind.predicted] <= figures[kind.budget] for kind in _bounded(figures))


def has_budgets(figures: Mapping[str, Any]) -> bool:
    """Whether a winner has any budget on a device."""
    return bool(_bounded(figures))


def have_same_budgets(some: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether two winners have the same budgets on a device."""
    return all(some.get(kind.budget) == others.get(kind.budget) for kind in (MEDIAN, P95))


def fits_as_measured(figures: Mapping[str, Any]) -> bool:
    """Whether the measurements are within the budgets, regardless of their intervals."""
    return all(figures[kind.measured] <= figures[kind.budget] for kind in _bounded(figures))


def broken_budgets(figures: Mapping[str, Any]) -> list[BoundedFigure]:
    """The exceeded budgets: even the lower end of the measured interval is above them."""
    return [kind for kind in _bounded(figures) if figures[kind.interval][0] > figures[kind.budget]]


def describe_broken(figures: Mapping[str, Any]) -> str:
    """Describe the exceeded budgets with the measurements."""
    return " and ".join(
        f"its measured {kind.statistic} of {figures[kind.measured]:.3f} ms (at least "
        f"{figures[kind.interval][0]:.3f}) is over the budget of {figures[kind.budget]:.3f} ms"
        for kind in broken_budgets(figures)
    )


def describe_budgets(figures: Mapping[str, Any]) -> str:
    """Describe the budgets of a winner, such as "a median within 2.000 ms"."""
    return " and ".join(
        f"a {kind.statistic} within {figures[kind.budget]:.3f} ms" for kind in _bounded(figures)
    )


def _bounded(figures: Mapping[str, Any]) -> list[BoundedFigure]:
    return [kind for kind in (MEDIAN, P95) if figures.get(kind.budget) is not None]
