"""What subnets are compared with, and the networks behind the lines of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from edgesearch.data.image_pool import ImagePool
from edgesearch.evaluate.judge import LabelledFeatures, SubnetJudge
from edgesearch.evaluate.settings import EvaluationSettings
from edgesearch.space import Architecture, SearchSpace
from edgesearch.supernet.weights import SupernetWeights, random_like


@dataclass(frozen=True)
class Subject:
    """What a line of a comparison is about.

    Attributes:
        name: Of the line.
        architecture: The subnet; None for the pixels themselves.
        trained: Whether with the trained weights, or with those that training started from.
    """

    name: str
    architecture: Architecture | None = None
    trained: bool = True

    @property
    def key(self) -> str:
        """The same text for what has the same features."""
        if self.architecture is None:
            return "pixels"
        return str(self.architecture) if self.trained else f"random weights/{self.architecture}"


def subjects(
    space: SearchSpace, winners: Mapping[str, Architecture], named: Iterable[Architecture] = ()
) -> list[Subject]:
    """The winners by name, architectures that were named, and what they are compared with."""
    return [
        *(Subject(f"winner {name}", architecture) for name, architecture in winners.items()),
        *(Subject("named", architecture) for architecture in named),
        Subject("largest", space.largest),
        Subject("smallest", space.smallest),
        Subject("largest, random weights", space.largest, trained=False),
        Subject("raw pixels"),
    ]


class Comparison:
    """Computes the features of subjects.

    Args:
        weights: The trained supernet.
        pool: The images of the run.
        settings: How accuracies are computed.
        calibration_images: Images for the normalisation statistics of each network.
        batch_size: Images in each forward pass.
    """

    def __init__(
        self,
        weights: SupernetWeights,
        pool: ImagePool,
        settings: EvaluationSettings,
        calibration_images: int,
        batch_size: int,
    ) -> None:
        self.weights = weights
        self.judge = SubnetJudge(pool, settings, calibration_images, batch_size)

    @cached_property
    def random(self) -> SupernetWeights:
        """The weights that the training started from."""
        return random_like(self.weights, self.judge.pool.seed)

    def features(self, subject: Subject) -> LabelledFeatures:
        """Features of the labelled images, normalisation recalibrated.

        Raises:
            DataError: There are no labels.
        """
        if subject.architecture is None:
            return self.judge.pixels(self.weights.space.largest.resolution)
        weights = self.weights if subject.trained else self.random
        network: nn.Module = weights.subnet(subject.architecture)
        network = network.to(memory_format=torch.channels_last)
        return self.judge.features(network, subject.architecture.resolution)
