"""Number of images needed to distinguish the candidates of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from edgesearch.space import Architecture

ScoresOn = Callable[[Sequence[Architecture], int], Iterable[torch.Tensor]]
"""Architectures and a number of images to per-image scores, (N,) float64 for each architecture."""

RELIABLE = 0.99
"""Required reliability of the candidates' agreements."""
RANKABLE = 0.7
"""Reliability below which candidates cannot be ranked: for normal values, Kendall's τ between the
order on these images and that on all images is 2/π · asin √0.7 = 0.63 there."""


@dataclass(frozen=True)
class ImagesNeeded:
    """Number of images that each candidate is scored on.

    Attributes:
        reliability: Last measured reliability of agreement, on half as many images if even these
            were too few; None with a single candidate.
    """

    images: int
    reliability: float | None

    @property
    def doubt(self) -> str:
        """Why the candidates cannot be ranked; empty if they can."""
        if self.reliability is None or self.reliability >= RANKABLE:
            return ""
        return (
            f"the candidates are too alike to be ranked: their agreements have a reliability of "
            f"{max(0.0, self.reliability):.2f}, the rest is due to the choice of images; score on "
            "more images (search.images), train for longer, compare with a teacher "
            "(search.reference=teacher) or by labels (search.score=labels), or widen the budgets"
        )


def reliability(scores: torch.Tensor) -> float:
    """Share of the variance of mean scores that is due to the candidates, not to chance.

    All candidates see the same images, so differences between images do not matter; the residual
    after subtracting candidate means and image means is chance.

    Source: Hoyt, "Test reliability estimated by analysis of variance" (Psychometrika 6, 1941).

    Args:
        scores: (candidates, images), at least 2 × 2.

    Returns:
        At most 1; 0 or less if chance alone explains the differences.
    """
    candidates, images = scores.shape
    of_candidates, of_images = scores.mean(dim=1, keepdim=True), scores.mean(dim=0, keepdim=True)
    rest = scores - of_candidates - of_images + scores.mean()
    chance = float(rest.square().sum()) / ((candidates - 1) * (images - 1))
    between = images * float(of_candidates.var())
    return 1 - chance / between if between > 0 else 0.0


def find_images_needed(
    scores_on: ScoresOn, pilots: Sequence[Architecture], first: int, most: int
) -> ImagesNeeded:
    """Double the number of images, from one batch, until the pilots' agreements are reliable."""
    found = None
    for images in doubled(first, most):
        if len(pilots) < 2 or (images == most and found is not None):
            return ImagesNeeded(most, found)
        found = reliability(torch.stack(list(scores_on(pilots, images))))
        if found >= RELIABLE:
            break
    return ImagesNeeded(images, found)


def doubled(first: int, most: int) -> Iterator[int]:
    """`first`, twice that and so on, and finally `most`."""
    images = min(first, most)
    while images < most:
        yield images
        images *= 2
    yield most
