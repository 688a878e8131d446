"""Whether a score orders networks as their accuracy does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

DRAWS_AT_ONCE = 250


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrap interval; NaN where there is nothing to order.

    Attributes:
        value: Of the networks as they are.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RankCorrelation:
    """How well a score orders networks.

    Attributes:
        score: Its name.
        tau: Kendall's tau-b with the accuracy, over all pairs of networks.
        within: The same over the pairs within a bin.
        of_bins: The same in each bin.
        behind: Tau of the first score less that of this one, from the same draws.
        behind_within: The same over the pairs within a bin.
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
    confidence: float = 0.95,
) -> list[RankCorrelation]:
    """Kendall's tau-b of each score, with percentile intervals from drawing networks anew.

    All scores see the same draws, so that a difference of two is known better than either. A
    network that is drawn twice makes no pair with itself.

    Source: Kendall, "The treatment of ties in ranking problems" (Biometrika 33, 1945); Efron and
    Tibshirani, "An introduction to the bootstrap" (1993), chapter 13.

    Args:
        scores: For each score its values (N,), higher for what it holds for better; the others are
            compared with the first.
        accuracies: (N,).
        bins: (N,) numbers of bins.
        draws: How often networks are drawn.
        seed: Of the draws.
        confidence: Of the intervals.
    """
    from scipy.stats import kendalltau

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
            _estimate(taus[0], confidence),
            _estimate(taus[1], confidence),
            tuple(
                float(kendalltau(scores[name][bins == each], accuracies[bins == each]).statistic)
                for each in np.unique(bins)
            ),
            _estimate(first[0] - taus[0], confidence),
            _estimate(first[1] - taus[1], confidence),
        )
        for name, taus in found.items()
    ]


def kendall_taus(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, pairs: np.ndarray
) -> np.ndarray:
    """Kendall's tau-b for several draws at once, which scipy has for one only.

    Args:
        x: (N,).
        y: (N,).
        weights: (draws, N): how often each is drawn.
        pairs: (N, N): 1 for pairs that count, 0 for others.

    Returns:
        (draws,), NaN where all that was drawn of x or of y is equal.
    """
    of_x, of_y = (  # compared, not subtracted: what a device cannot run is infinitely slow
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


def _estimate(values: np.ndarray, confidence: float) -> Estimate:
    """The first of the values, and the interval that the others span."""
    drawn = values[1:][np.isfinite(values[1:])]
    if not len(drawn):
        return Estimate(float(values[0]), float("nan"), float("nan"))
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(float(values[0]), float(low), float(high))
