"""Figures from raw samples. A round is the samples taken in one go; rounds are minutes apart.

Samples of a round share the state that the machine was in, so rounds, not samples, are what is
independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Rounds = Sequence[Sequence[float]]

_LOW_QUANTILE = 0.1


def low_quantile_ms(rounds: Rounds) -> float:
    """Return the 10 % quantile of the rounds' minima: what the work takes when nothing disturbs.

    Minima of blocks add up to those of networks far better than medians do; the quantile over
    rounds keeps one lucky round from deciding.

    Args:
        rounds: Samples in ms, at least one in each round.
    """
    return float(np.quantile([min(samples) for samples in rounds], _LOW_QUANTILE))


def low_quantile_width_ms(minima_ms: Sequence[float], confidence: float = 0.9) -> float:
    """Return how wide the interval of the low quantile is.

    The j-th and the k-th smallest of n independent values enclose the quantile q with a
    probability that follows from Binomial(n, q) (the order-statistics interval of nonparametric
    statistics). With few values j is 1, and the lower end is less sure than the upper one.

    Args:
        minima_ms: Fastest run of each round, at least one.
        confidence: Probability that the interval holds the quantile.
    """
    ordered, count, share = sorted(minima_ms), len(minima_ms), _LOW_QUANTILE
    outside = (1 - confidence) / 2
    below, low, high = 0.0, 1, count
    for hits in range(count):
        below += math.comb(count, hits) * share**hits * (1 - share) ** (count - hits)
        if below <= outside:
            low = hits + 1
        if 1 - below <= outside:
            high = max(hits + 1, low)
            break
    return ordered[high - 1] - ordered[low - 1]


def median_ms(rounds: Rounds) -> float:
    """Return the median over rounds of each round's median.

    Args:
        rounds: Samples in ms, at least one in each round.
    """
    return float(np.median(_round_medians(rounds)))


def percentile_ms(rounds: Rounds, q: float) -> float:
    """Return a percentile of all samples.

    Args:
        rounds: Samples in ms, at least one in each round.
        q: Between 0 and 100.
    """
    return float(np.percentile(np.concatenate([np.asarray(r, float) for r in rounds]), q))


def median_interval_ms(rounds: Rounds, confidence: float = 0.95) -> tuple[float, float]:
    """Return an interval that holds the median with some confidence, whatever the distribution.

    The k-th smallest and k-th largest of n independent values enclose the median with probability
    1 - 2 P(Binomial(n, 1/2) < k) (the order-statistics interval of nonparametric statistics). The
    largest such k is taken. It encloses `median_ms`.

    Args:
        rounds: Samples in ms, at least one in each round.
        confidence: Probability that the interval holds the median. Fewer than six rounds cannot
            give 0.95: then the interval is from the lowest to the highest round.
    """
    medians = sorted(_round_medians(rounds))
    count = len(medians)
    rank, outside = 1, 2 * _binomial(count, 0, 0.5)
    while rank < count / 2:
        outside += 2 * _binomial(count, rank, 0.5)
        if 1 - outside < confidence:
            break
        rank += 1
    return medians[rank - 1], medians[count - rank]


def percentile_interval_ms(
    rounds: Rounds, q: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return an interval that holds a percentile with some confidence, whatever the distribution.

    The j-th and the k-th smallest of n independent values enclose the percentile with a probability
    that follows from Binomial(n, q) (the order-statistics interval of nonparametric statistics).
    Independent are the rounds: the ranks are those for as many values as there are rounds, and are
    looked up, as shares, among all samples. If the samples of a round were all alike, this would be
    the interval of one value a round; as far as they differ, there is more to go by than was
    counted on, and the interval is wider than it need be. It encloses `percentile_ms`.

    Args:
        rounds: Samples in ms, at least one in each round.
        q: Above 0 and below 100.
        confidence: Probability that the interval holds the percentile; half of the rest is left on
            either side. Where there are too few rounds for it (for the 95th percentile: one for the
            lower end, up to 71 for the upper one), an end is the smallest or the largest sample.
    """
    count, share, outside = len(rounds), q / 100, (1 - confidence) / 2
    low, high, below = 1, count, 0.0
    for hits in range(count):
        if below <= outside:  # the probability that fewer than `hits` values are below it
            low = max(hits, 1)
        below += _binomial(count, hits, share)
        if 1 - below <= outside:
            high = hits + 1
            break
    ordered = np.sort(np.concatenate([np.asarray(samples, float) for samples in rounds]))
    first, last = (low - 1) * len(ordered) // count, -(-high * len(ordered) // count) - 1
    return float(ordered[first]), float(ordered[last])


def _binomial(count: int, hits: int, share: float) -> float:
    """The probability of so many hits; by logarithms, since the ways are too many for a float."""
    ways = math.lgamma(count + 1) - math.lgamma(hits + 1) - math.lgamma(count - hits + 1)
    return math.exp(ways + hits * math.log(share) + (count - hits) * math.log1p(-share))


def _round_medians(rounds: Rounds) -> list[float]:
    return [float(np.median(samples)) for samples in rounds]
