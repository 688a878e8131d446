"""How far predicted latencies are from measured ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PredictionError:
    """Errors of predictions, relative to what was measured; fractions, not per cent.

    Attributes:
        n: Number of networks.
        mape: Mean absolute error.
        bias: Mean error; above 0 where too much was predicted.
        within_5: Share of the networks with an error of 5 % at most.
        within_10: Share of the networks with an error of 10 % at most.
        kendall_tau: Rank correlation (tau-b), in -1 … 1; None if it is not defined.
        worst: Largest absolute error.
    """

    n: int
    mape: float
    bias: float
    within_5: float
    within_10: float
    kendall_tau: float | None
    worst: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PredictionError:
        """Read what `to_dict` wrote."""
        return cls(**values)


def prediction_error(predicted_ms: np.ndarray, measured_ms: np.ndarray) -> PredictionError:
    """Compare predictions with measurements.

    Args:
        predicted_ms: (N,), N at least 1.
        measured_ms: (N,), above 0.
    """
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
