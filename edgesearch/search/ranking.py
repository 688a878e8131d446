"""The order of the best candidates, on as many images as are needed to be certain of it.

A sequential procedure (racing): all contenders see the same images, twice as many in each round,
and are compared by paired differences, whose variance is far smaller than that of the scores. It
stops when each winner is significantly better than all below it, or at the maximum of images.
Bonferroni correction over all comparisons and rounds keeps the probability of any false one below 1
- confidence.

Source: Maron and Moore, "Hoeffding races" (NIPS 1993); Moore and Lee, "Efficient algorithms for
minimizing cross validation error" (ICML 1994) for paired comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from edgesearch.search.images_needed import ScoresOn, doubled
from edgesearch.space import Architecture

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over images, with the ends of its confidence interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: torch.Tensor, confidence: float = CONFIDENCE) -> Interval:
        """Student's t interval of the mean of (N,) values, N ≥ 2."""
        from scipy.stats import t

        mean = float(figures.mean())
        half = float(figures.std()) / math.sqrt(len(figures))
        half *= float(t.ppf((1 + confidence) / 2, len(figures) - 1))
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Leader:
    """A contender with its agreement on the images of the comparison."""

    architecture: Architecture
    agreement: Interval


@dataclass(frozen=True)
class Ranking:
    """The best candidates in order.

    Attributes:
        settled: Whether each winner is significantly better than all below it.
    """

    leaders: tuple[Leader, ...]
    images: int
    settled: bool
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        leaders = [
            {"architecture": dict(leader.architecture), **asdict(leader.agreement)}
            for leader in self.leaders
        ]
        return {**vars(self), "leaders": leaders}


def settle(
    scores_on: ScoresOn,
    contenders: Sequence[Architecture],
    winners: int,
    *,
    first: int,
    most: int,
    confidence: float = CONFIDENCE,
) -> Ranking:
    """Add images, from `first` to `most`, until the order of the winners is settled.

    `scores_on` must be deterministic; `confidence` is the probability that all comparisons are
    right.
    """
    looks = list(doubled(first, most))
    places = range(min(winners, len(contenders)))
    comparisons = sum(len(contenders) - 1 - place for place in places)
    level = 1 - (1 - confidence) / max(1, len(looks) * comparisons)
    for images in looks:
        scores = dict(zip(contenders, scores_on(contenders, images), strict=True))
        ranked = sorted(contenders, key=lambda a: -float(scores[a].mean()))
        settled = all(
            Interval.of(scores[better] - scores[worse], level).low > 0
            for place, better in enumerate(ranked[:winners])
            for worse in ranked[place + 1 :]
        )
        if settled:
            break
    leaders = tuple(Leader(a, Interval.of(scores[a], confidence)) for a in ranked)
    return Ranking(leaders, images, settled, confidence)


@dataclass(frozen=True)
class DomainComparison:
    """Whether two domains prefer different architectures.

    Attributes:
        preferences: For each domain, agreement of its own winner minus that of the other's, on its
            own images.
    """

    winners: tuple[Architecture, Architecture]
    preferences: tuple[Interval, Interval]

    @property
    def differ(self) -> bool:
        """Whether each domain significantly prefers its own winner."""
        return all(preference.low > 0 for preference in self.preferences)

    def __str__(self) -> str:
        if self.winners[0] == self.winners[1]:
            return f"the domains agree: {self.winners[0]} is the winner of both"
        figures = " and ".join(
            f"{p.mean:+.5f} ({p.low:+.5f} to {p.high:+.5f})" for p in self.preferences
        )
        verdict = "differ" if self.differ else "agree within the intervals"
        return (
            f"the domains {verdict}: {self.winners[0]} and {self.winners[1]}; each domain's own "
            f"winner is better there by {figures}"
        )


def compare_domains(
    first: Callable[[Architecture], torch.Tensor],
    second: Callable[[Architecture], torch.Tensor],
    winners: tuple[Architecture, Architecture],
    confidence: float = CONFIDENCE,
) -> DomainComparison:
    """Score the winners of two domains on both.

    `first` and `second` map an architecture to scores (N,) on images of each domain; `confidence`
    holds for both intervals together.
    """
    level = 1 - (1 - confidence) / 2
    (own, other) = winners
    preferences = (
        Interval.of(first(own) - first(other), level),
        Interval.of(second(other) - second(own), level),
    )
    return DomainComparison(winners, preferences)
