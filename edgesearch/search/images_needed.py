"""How many images tell the candidates of a search apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from edgesearch.space import Architecture

ScoresOn = Callable[[Sequence[Architecture], int], Iterable[torch.Tensor]]
"""Architectures and a number of images to the figure of each image, (N,) float64 for each one."""

RELIABLE = 0.99
"""Share of the variance of the candidates' agreements that has to be their own, not chance's."""


@dataclass(frozen=True)
class ImagesNeeded:
    """What was found out before a search.

    Attributes:
        images: How many images each candidate is scored on.
        reliability: Of agreements, as far as it was found out: on half as many images where even
            these do not suffice; None if there was nothing to try.
    """

    images: int
    reliability: float | None


def reliability(scores: torch.Tensor) -> float:
    """How much of the variance of means over images is that of the candidates.

    All candidates see the same images, so images that are hard for all of them do no harm; what
    remains of a figure without the mean of its candidate and that of its image is chance.

    Source: Hoyt, "Test reliability estimated by analysis of variance" (Psychometrika 6, 1941).

    Args:
        scores: (candidates, images), two of each at least.

    Returns:
        At most 1; 0 or less where chance alone would explain the differences.
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
    """Double the number of images until the agreements of some candidates are reliable.

    Args:
        scores_on: What scores them.
        pilots: Candidates, drawn by chance from those that the search goes through.
        first: The number to begin with: a batch.
        most: The largest number.
    """
    found = None
    for images in doubled(first, most):
        if len(pilots) < 2 or images == most:
            return ImagesNeeded(most, found if len(pilots) > 1 else None)
        found = reliability(torch.stack(list(scores_on(pilots, images))))
        if found >= RELIABLE:
            break
    return ImagesNeeded(images, found)


def doubled(first: int, most: int) -> Iterator[int]:
    """`first`, twice that and so on, and at last `most`."""
    images = min(first, most)
    while images < most:
        yield images
        images *= 2
    yield most
