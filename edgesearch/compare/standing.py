"""How networks stand to each other in metric and latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Of the intervals of differences."""


@dataclass(frozen=True)
class Standing:
    """A network's metric and latency.

    Attributes:
        values: The metric (0 … 1) of each training, in the order of the seeds.
        latency_ms: Median latency.
    """

    values: tuple[float, ...]
    latency_ms: float

    @property
    def mean(self) -> float:
        """Mean metric."""
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the metric; None for a single training."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """By how much a network is ahead of another one.

    Attributes:
        mean: Difference of the mean metrics.
        half: Half of its interval; None for a single training.
        latency: Latency as a multiple of the other's.
    """

    mean: float
    half: float | None
    latency: float

    @property
    def is_sure(self) -> bool:
        """Whether the interval does not contain 0."""
        return self.half is not None and abs(self.mean) > self.half


def difference(one: Standing, other: Standing) -> Difference:
    """The difference of two networks that were trained with the same seeds.

    The interval is that of the mean of paired differences (Student's t, `LEVEL`): it contains what
    seeds change, not what other test images would.
    """
    gaps = np.subtract(one.values, other.values)
    half = None
    if len(gaps) > 1:
        from scipy.stats import t

        spread = float(np.std(gaps, ddof=1)) / math.sqrt(len(gaps))
        half = float(t.ppf((1 + LEVEL) / 2, len(gaps) - 1)) * spread
    return Difference(float(gaps.mean()), half, one.latency_ms / other.latency_ms)


def front(networks: Mapping[str, Standing]) -> list[str]:
    """Networks than which no other is both as fast and as good, and better in one; fastest first.

    The metric is the mean of all trainings.
    """

    def beats(other: Standing, own: Standing) -> bool:
        no_worse = other.latency_ms <= own.latency_ms and other.mean >= own.mean
        return no_worse and (other.latency_ms < own.latency_ms or other.mean > own.mean)

    best = [
        name
        for name, own in networks.items()
        if not any(beats(other, own) for other in networks.values())
    ]
    return sorted(best, key=lambda name: networks[name].latency_ms)


def verdict(
    winner: str,
    networks: Mapping[str, Standing],
    metric: str,
    device: str,
    random: Sequence[str] = (),
) -> str:
    """Say whether the winner is on the front, and how it compares with each other network.

    Args:
        winner: Its name in `networks`.
        networks: All of them by name.
        metric: Name of the metric.
        device: Name of the device.
        random: Names of the random architectures, which are named together.
    """
    own = networks[winner]
    on_front = winner in front(networks)
    words = [
        f"{winner} is {'on' if on_front else 'not on'} the front of {len(networks)} networks on "
        f"{device}: {metric} {_shown(own)} in {own.latency_ms:.3f} ms."
    ]
    others = [name for name in networks if name != winner and name not in random]
    compared = {name: difference(own, networks[name]) for name in others}
    ahead = {n: d for n, d in compared.items() if d.is_sure and d.mean > 0}
    behind = {n: d for n, d in compared.items() if d.is_sure and d.mean < 0}
    unsure = {n: d for n, d in compared.items() if not d.is_sure}
    for found, word in ((ahead, "ahead of"), (behind, "behind"), (unsure, "not surely apart from")):
        if found:
            listed = ", ".join(f"{name} ({_words(gap)})" for name, gap in found.items())
            words.append(f"It is {word} {listed}.")
    if random:
        means = [networks[name].mean for name in random]
        gap = 100 * (own.mean - float(np.median(means)))
        words.append(
            f"Against the median of {len(random)} random architectures of its latency it is "
            f"{abs(gap):.1f} points {'ahead' if gap > 0 else 'behind' if gap < 0 else 'apart'}; "
            f"{sum(own.mean > mean for mean in means)} of them are worse."
        )
    return " ".join(words)


def _shown(standing: Standing) -> str:
    spread = "" if standing.deviation is None else f" ± {100 * standing.deviation:.1f}"
    return f"{100 * standing.mean:.1f}{spread} %"


def _words(gap: Difference) -> str:
    half = "one training each" if gap.half is None else f"± {100 * gap.half:.1f}"
    return f"{100 * gap.mean:+.1f} points, {half}; {gap.latency:.2f} times its latency"
