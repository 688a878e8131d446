"""Errors of predicted latencies, as figures and as a plot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesearch.pictures import picture


@dataclass(frozen=True)
class PredictionError:
    """Relative errors of predictions, as fractions.

    Attributes:
        bias: Mean error; above 0 if predictions are too high.
        within_5: Share of networks with an error of at most 5 %.
        kendall_tau: Rank correlation (tau-b), in -1 … 1; None if undefined.
    """

    n: int
    mape: float
    bias: float
    within_5: float
    within_10: float
    kendall_tau: float | None
    worst: float


def prediction_error(predicted_ms: np.ndarray, measured_ms: np.ndarray) -> PredictionError:
    """Errors of predictions (N,), N ≥ 1, against measurements (N,) above 0."""
    from scipy.stats import kendalltau

    errors = (predicted_ms - measured_ms) / measured_ms
    sizes = np.abs(errors)
    tau = math.nan
    if len(errors) > 1:
        tau = float(kendalltau(predicted_ms, measured_ms).statistic)
    return PredictionError(
        n=len(errors),
        mape=float(sizes.mean()),
        bias=float(errors.mean()),
        within_5=float((sizes <= 0.05).mean()),
        within_10=float((sizes <= 0.10).mean()),
        kendall_tau=None if math.isnan(tau) else tau,
        worst=float(sizes.max()),
    )


def plot_predictions(
    path: Path, predicted_ms: np.ndarray, measured_ms: np.ndarray, title: str
) -> None:
    """Plot predictions (N,) against measurements (N,), with lines for errors of 0, 5 and 10 %.

    Raises:
        FileError: The file cannot be written.
    """
    with picture(path, 5.5, 5) as figure:
        axes = figure.add_subplot()
        ends = [0.9 * min(measured_ms), 1.1 * max(measured_ms)]
        for share, style in ((0.0, "-"), (0.05, "--"), (0.10, ":")):
            for factor in sorted({1 - share, 1 + share}):
                label = f"±{share:.0%}" if share and factor > 1 else None
                axes.plot(ends, [factor * end for end in ends], style, color="0.6", label=label)
        axes.plot(measured_ms, predicted_ms, "o", markersize=4)
        axes.set(xlabel="measured median (ms)", ylabel="predicted median (ms)", title=title)
        axes.legend()
