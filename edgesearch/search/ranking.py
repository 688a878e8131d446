"""The order of the best candidates, on as many images as it takes to be sure of it.

A sequential procedure, as in races between models: all contenders see the same images, a batch and
then twice as many each time, and are compared by the differences of their figures image by image,
which are far smaller than the figures' own. It stops as soon as each winner is better than all that
rank below it, or at the bound on the images. Every comparison at every look is made at a level that
keeps the probability of any false one within 1 - confidence (Bonferroni).

Source: Maron and Moore, "Hoeffding races" (NIPS 1993); Moore and Lee, "Efficient algorithms for
minimizing cross validation error" (ICML 1994) for comparing on the same examples.
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
    """A mean over images, and where that over all images of the domain is likely to be.

    Attributes:
        mean: Over the images that were looked at.
        low: Lower end.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: torch.Tensor, confidence: float = CONFIDENCE) -> Interval:
        """Student's interval of the mean of (N,) figures, N being 2 at least."""
        from scipy.stats import t

        mean = float(figures.mean())
        half = float(figures.std()) / math.sqrt(len(figures))
        half *= float(t.ppf((1 + confidence) / 2, len(figures) - 1))
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Leader:
    """A candidate that was compared with other good ones.

    Attributes:
        architecture: The candidate.
        agreement: On the images of the comparison, with its interval.
    """

    architecture: Architecture
    agreement: Interval


@dataclass(frozen=True)
class Ranking:
    """The best candidates in order.

    Attributes:
        leaders: The contenders, best first.
        images: How many images all of them were compared on.
        settled: Whether each winner is better than all that rank below it, beyond chance.
        confidence: Of that statement, and of the intervals.
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
    """Draw images until the order of the winners is settled.

    Args:
        scores_on: What scores them; deterministic, so that the ranking is.
        contenders: Candidates, best first as far as is known.
        winners: How many of them are to be told apart from each other and from the rest.
        first: Images to begin with.
        most: Images at most.
        confidence: Probability that no comparison is a false one.
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
    """Whether two domains want different architectures.

    Attributes:
        winners: The best architecture of each domain.
        preferences: For each domain the agreement of its own winner less that of the other's, on
            its own images.
    """

    winners: tuple[Architecture, Architecture]
    preferences: tuple[Interval, Interval]

    @property
    def differ(self) -> bool:
        """Whether each domain prefers its own winner, beyond chance."""
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
    """Score the winners of two domains on both of them.

    Args:
        first: An architecture to its figures (N,) on images of the first domain.
        second: The same for the second domain.
        winners: The best architecture of each, within the same budgets.
        confidence: Of both intervals together.
    """
    level = 1 - (1 - confidence) / 2
    (own, other) = winners
    preferences = (
        Interval.of(first(own) - first(other), level),
        Interval.of(second(other) - second(own), level),
    )
    return DomainComparison(winners, preferences)
