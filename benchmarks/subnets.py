"""Largest, middle and smallest subnet of a trained supernet, and their accuracies."""

from __future__ import annotations

from collections.abc import Callable

from edgesearch import Run
from edgesearch.evaluate.comparison import Comparison, Subject
from edgesearch.space import Architecture, SearchSpace
from edgesearch.stages.evaluate import make_judge

SUBNETS = ("largest", "middle", "smallest")


def named_subnets(space: SearchSpace) -> dict[str, Architecture]:
    """The subnets by name; the middle one is the median of all by MACs."""
    middle = sorted(space, key=space.macs)[space.size // 2]
    return dict(zip(SUBNETS, (space.largest, middle, space.smallest), strict=True))


def knn_judge(run: Run) -> Callable[[Subject], float]:
    """What computes kNN accuracies on held-out images, as `edgesearch evaluate` does.

    Args:
        run: Has a trained supernet.
    """
    return Comparison(run.load_weights(), make_judge(run, run.open_images())).knn
