"""Statistics of raw samples. A round is the samples taken in one go; rounds are minutes apart.

Samples of a round share the machine's state: rounds are independent, samples are not.
All functions require at least one round and one sample (in ms) in each.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np

Rounds = Sequence[Sequence[float]]

_LOW_QUANTILE = 0.1


def low_quantile_ms(rounds: Rounds) -> float:
    """The 10 % quantile of all samples: the undisturbed latency.

    Low quantiles of blocks add up to those of networks far better than medians do. All samples
    count, since on a machine that slows down for milliseconds at a time the fastest of each round
    are too few: few rounds have an undisturbed run of a long network.
    """
    return percentile_ms(rounds, 100 * _LOW_QUANTILE)


def low_quantile_width_ms(minima_ms: Sequence[float]) -> float:
    """Width of the 90 % confidence interval of the low quantile of the rounds' minima.

    The j-th and the k-th smallest of n independent values enclose the quantile q with a
    probability given by Binomial(n, q) (order-statistics interval of nonparametric statistics).
    With few values j is 1, and the lower end has less confidence than the upper one.
    """
    ordered = sorted(minima_ms)
    low, high = _ranks_around_low_quantile(len(ordered))
    return ordered[high - 1] - ordered[low - 1]


@lru_cache(maxsize=4096)
def _ranks_around_low_quantile(count: int) -> tuple[int, int]:
    """Ranks, from 1, of the values that enclose the low quantile of `count` values."""
    share, below, low, high, outside = _LOW_QUANTILE, 0.0, 1, count, (1 - 0.9) / 2
    for hits in range(count):
        below += _binomial(count, hits, share)
        if below <= outside:
            low = hits + 1
        if 1 - below <= outside:
            high = max(hits + 1, low)
            break
    return low, high


def median_ms(rounds: Rounds) -> float:
    """Median over rounds of each round's median."""
    return float(np.median(_round_medians(rounds)))


def percentile_ms(rounds: Rounds, q: float) -> float:
    """A percentile of all samples; `q` is between 0 and 100."""
    return float(np.percentile([*chain.from_iterable(rounds)], q))


def median_interval_ms(rounds: Rounds) -> tuple[float, float]:
    """Distribution-free 95 % confidence interval of the median; it contains `median_ms`.

    The k-th smallest and k-th largest of n independent values enclose the median with probability
    1 - 2 P(Binomial(n, 1/2) < k) (order-statistics interval of nonparametric statistics). The
    largest such k is taken. For fewer than six rounds, which cannot give 95 %, the interval is from
    the lowest to the highest round.
    """
    medians = sorted(_round_medians(rounds))
    count = len(medians)
    rank, outside = 1, 2 * _binomial(count, 0, 0.5)
    while rank < count / 2:
        outside += 2 * _binomial(count, rank, 0.5)
        if 1 - outside < 0.95:
            break
        rank += 1
    return medians[rank - 1], medians[count - rank]


def percentile_interval_ms(rounds: Rounds, q: float) -> tuple[float, float]:
    """Distribution-free 95 % confidence interval of a percentile; it contains `percentile_ms`.

    The j-th and the k-th smallest of n independent values enclose the percentile with a probability
    given by Binomial(n, q) (order-statistics interval of nonparametric statistics); both tails are
    equal. Ranks are computed for n = number of rounds, since rounds are independent, and applied as
    shares to all samples. If all samples of a round were equal, this would be the interval of one
    value a round; otherwise the interval is wider than necessary. With too few rounds (for the 95th
    percentile: one for the lower end, up to 71 for the upper one), an end is the smallest or the
    largest sample.

    Args:
        rounds: Samples by round.
        q: Above 0 and below 100.
    """
    count, share, outside = len(rounds), q / 100, (1 - 0.95) / 2
    low, high, below = 1, count, 0.0
    for hits in range(count):
        if below <= outside:  # P(fewer than `hits` values are below the percentile)
            low = max(hits, 1)
        below += _binomial(count, hits, share)
        if 1 - below <= outside:
            high = hits + 1
            break
    ordered = sorted(chain.from_iterable(rounds))
    first, last = (low - 1) * len(ordered) // count, -(-high * len(ordered) // count) - 1
    return float(ordered[first]), float(ordered[last])


def _binomial(count: int, hits: int, share: float) -> float:
    """Probability of a number of hits, by logarithms: binomial coefficients overflow floats."""
    ways = math.lgamma(count + 1) - math.lgamma(hits + 1) - math.lgamma(count - hits + 1)
    return math.exp(ways + hits * math.log(share) + (count - hits) * math.log1p(-share))


def _round_medians(rounds: Rounds) -> list[float]:
    # Rounds have a few samples each: numpy takes ten times as long for them.
    return [statistics.median(samples) for samples in rounds]
