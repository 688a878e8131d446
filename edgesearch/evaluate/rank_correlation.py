"""Rank correlation between scores and accuracies of networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

DRAWS_AT_ONCE = 250


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its bootstrap interval; NaN if all networks tie."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RankCorrelation:
    """Rank correlation of a score with the accuracy.

    Attributes:
        score: Name of the score.
        tau: Kendall's tau-b over all pairs of networks.
        within: The same over pairs within a bin.
        of_bins: The same in each bin.
        behind: Tau of the first score minus this one, from the same draws.
        behind_within: The same over pairs within a bin.
    """

    score: str
    tau: Estimate
    within: Estimate
    of_bins: tuple[float, ...]
    behind: Estimate
    behind_within: Estimate


def rank_correlations(
    scores: Mapping[str, np.ndarray],
    accuracies: np.ndarray,
    bins: np.ndarray,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> list[RankCorrelation]:
    """Kendall's tau-b of each score, with 95 % percentile bootstrap intervals over networks.

    All scores share the draws, which narrows the interval of a difference. A network that is drawn
    twice forms no pair with itself.

    Source: Kendall, "The treatment of ties in ranking problems" (Biometrika 33, 1945); Efron and
    Tibshirani, "An introduction to the bootstrap" (1993), chapter 13.

    Args:
        scores: Values (N,) of each score, higher for better; the first is the reference.
        accuracies: (N,).
        bins: (N,) bin numbers.
        draws: Bootstrap draws.
        seed: Seed of the draws.
    """
    count = len(accuracies)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)
    weights = np.concatenate([np.ones((1, count)), weights])
    pairs = [np.ones((count, count)), (bins[:, None] == bins[None, :]).astype(float)]
    found = {
        name: [kendall_taus(values, accuracies, weights, mask) for mask in pairs]
        for name, values in scores.items()
    }
    first = next(iter(found.values()))
    return [
        RankCorrelation(
            name,
            _estimate(taus[0]),
            _estimate(taus[1]),
            tuple(
                _kendall_tau(scores[name][bins == each], accuracies[bins == each])
                for each in np.unique(bins)
            ),
            _estimate(first[0] - taus[0]),
            _estimate(first[1] - taus[1]),
        )
        for name, taus in found.items()
    ]


def _kendall_tau(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau-b of (N,) values; NaN for a single one."""
    from scipy.stats import kendalltau

    return float(kendalltau(x, y).statistic) if len(x) > 1 else math.nan


def kendall_taus(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, pairs: np.ndarray
) -> np.ndarray:
    """Kendall's tau-b of several weighted draws at once, which scipy lacks.

    Args:
        x: (N,).
        y: (N,).
        weights: (draws, N): multiplicity of each network.
        pairs: (N, N): 1 for pairs that count, else 0.

    Returns:
        (draws,), NaN if all drawn values of x or of y tie.
    """
    of_x, of_y = (  # compared, not subtracted: costs may be infinite
        (np.greater.outer(values, values).astype(float) - np.less.outer(values, values)) * pairs
        for values in (x, y)
    )
    sums = [_quadratic(weights, matrix) for matrix in (of_x * of_y, np.abs(of_x), np.abs(of_y))]
    scale = np.sqrt(sums[1] * sums[2])
    return np.divide(sums[0], scale, out=np.full_like(scale, np.nan), where=scale > 0)


def _quadratic(weights: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """wᵀ M w for each row w: (draws,)."""
    parts = [
        ((part @ matrix) * part).sum(axis=1)
        for part in np.split(weights, range(DRAWS_AT_ONCE, len(weights), DRAWS_AT_ONCE))
    ]
    return np.concatenate(parts)


def _estimate(values: np.ndarray) -> Estimate:
    """The first value, and the 95 % interval of the others."""
    drawn = values[1:][np.isfinite(values[1:])]
    if not len(drawn):
        return Estimate(float(values[0]), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(values[0]), float(low), float(high))
