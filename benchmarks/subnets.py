"""Largest, middle and smallest subnet of a trained supernet, and their accuracies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgesearch.cli.stages import evaluate_arguments
from edgesearch.config import Config
from edgesearch.data.image_pool import ImagePool
from edgesearch.evaluate.comparison import Comparison, Subject
from edgesearch.space import Architecture, SearchSpace
from edgesearch.supernet.weights import SupernetWeights

SUBNETS = ("largest", "middle", "smallest")


def named_subnets(space: SearchSpace) -> dict[str, Architecture]:
    """The subnets by name; the middle one is the median of all by MACs."""
    middle = sorted(space, key=space.macs)[space.size // 2]
    return dict(zip(SUBNETS, (space.largest, middle, space.smallest), strict=True))


def knn_judge(config: Config, weights_path: Path) -> Callable[[Subject], float]:
    """What computes kNN accuracies on held-out images, as `edgesearch evaluate` does.

    Args:
        config: Of the run.
        weights_path: Its supernet.
    """
    arguments = evaluate_arguments(config)
    space, looked_at = arguments["space"], arguments["looked_at"]
    comparison = Comparison(
        SupernetWeights.load(weights_path, space),
        ImagePool(arguments["images"], space.in_channels, config.seed),
        arguments["evaluation"],
        looked_at.calibration_images,
        looked_at.batch_size,
    )
    return lambda subject: comparison.judge.knn(comparison.features(subject))
