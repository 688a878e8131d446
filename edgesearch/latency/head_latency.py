"""The latency that the head of a task adds to a backbone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgesearch.latency.fits import best_form, finite_fields

MIN_WHOLE = 6
"""Fewest whole models for a fit, where the space has as many that can run."""


@dataclass(frozen=True)
class HeadFit:
    """Linear model from a backbone's prediction, and what its head computes, to the whole model.

    Fitted like `Correction`, by least squares of relative errors on whole models with heads; the
    terms in use are selected by leave-one-out error.

    Attributes:
        scale: Factor on the predicted backbone, without the blocks that the head does not need.
        offset_ms: Cost of the head that is the same on all backbones.
        per_million_macs_ms: Cost per million multiply-accumulates of the head and image.
        per_million_values_ms: Cost per million numbers that its layers read and write.
        p95_ratio: Ratio of 95th percentile to median.
        networks: Number of fitted whole models.
        fit_mape: Mean absolute relative error of the fit.
        loo_mape: Leave-one-out error; None for a single network.
    """

    scale: float
    offset_ms: float
    per_million_macs_ms: float
    per_million_values_ms: float
    p95_ratio: float
    networks: int
    fit_mape: float
    loo_mape: float | None

    def head_ms(self, features: np.ndarray) -> float:
        """Cost of a head besides `offset_ms`, from its `FEATURES`."""
        each = np.array([self.per_million_macs_ms, self.per_million_values_ms])
        return float(each @ features) / _MILLION

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HeadFit:
        """Read the result of `dataclasses.asdict`.

        Raises:
            ValueError: A value is of the wrong kind.
            KeyError: A value is missing.
        """
        return cls(**finite_fields(cls.__dataclass_fields__, values))


def fit_head(
    backbone_ms: np.ndarray, features: np.ndarray, whole_ms: np.ndarray, p95_ratio: float
) -> HeadFit:
    """Fit the latency of a head.

    Args:
        backbone_ms: Predicted backbones (N,), without the blocks that the head does not need.
        features: `FEATURES` of the head on each (N, 2).
        whole_ms: Measured whole models (N,), N ≥ 1.
        p95_ratio: See `HeadFit`.
    """
    count = len(whole_ms)
    columns = np.column_stack([backbone_ms, np.ones(count), features / _MILLION])
    best, error = best_form(columns, whole_ms, _FORMS, _solve, _is_sound)
    assert best is not None  # a head that costs nothing is sound
    predicted = columns @ best
    return HeadFit(
        scale=float(best[0]),
        offset_ms=float(best[1]),
        per_million_macs_ms=float(best[2]),
        per_million_values_ms=float(best[3]),
        p95_ratio=p95_ratio,
        networks=count,
        fit_mape=float(np.abs(predicted / whole_ms - 1).mean()),
        loo_mape=error if count > 1 else None,
    )


_MILLION = 1e6
_FORMS = tuple(form for size in range(5) for form in itertools.combinations((1, 2, 3, 0), size))
"""Columns in use: 0 deviation from the backbone's prediction, 1 offset, 2 multiply-accumulates,
3 values. The first form, in which a head costs nothing, is always sound."""


def _solve(columns: np.ndarray, whole_ms: np.ndarray, form: tuple[int, ...]) -> np.ndarray:
    """(4,) coefficients with the least squared relative errors; unused ones add nothing."""
    coefficients = np.array([1.0, 0.0, 0.0, 0.0])
    if form:
        left = 1 - columns[:, 0] / whole_ms
        weighted = columns[:, form] / whole_ms[:, None]
        # Scaled, since the columns have different units.
        size = np.abs(weighted).max(axis=0) + 1e-300
        coefficients[list(form)] += np.linalg.lstsq(weighted / size, left, rcond=None)[0] / size
    return coefficients


def _is_sound(coefficients: np.ndarray, columns: np.ndarray) -> bool:
    """Whether latency grows with backbone and head, and all fitted ones are positive."""
    grows = coefficients[0] > 0 and coefficients[2] >= 0 and coefficients[3] >= 0
    return bool(grows and (columns @ coefficients).min() > 0)
