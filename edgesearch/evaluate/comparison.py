"""Subnets compared with the ends of the space, untrained weights and raw pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from edgesearch.evaluate.judge import LabelledFeatures, SubnetJudge
from edgesearch.space import Architecture, SearchSpace
from edgesearch.supernet.weights import SupernetWeights, random_like


@dataclass(frozen=True)
class Subject:
    """A named row: a subnet with trained or initial weights, or raw pixels (None)."""

    name: str
    architecture: Architecture | None = None
    trained: bool = True

    @property
    def key(self) -> str:
        """Identifies the features: subjects with equal features have equal keys."""
        if self.architecture is None:
            return "pixels"
        return str(self.architecture) if self.trained else f"random weights/{self.architecture}"

    def costs(self, space: SearchSpace) -> tuple[int | None, int | None]:
        """Learnable parameters and multiply-accumulates; None for pixels."""
        if self.architecture is None:
            return None, None
        return space.params(self.architecture), space.macs(self.architecture)


def subjects(
    space: SearchSpace, winners: Mapping[str, Architecture], named: Iterable[Architecture] = ()
) -> list[Subject]:
    """Winners by name, further architectures, and the baselines."""
    return [
        *(Subject(f"winner {name}", architecture) for name, architecture in winners.items()),
        *(Subject("named", architecture) for architecture in named),
        Subject("largest", space.largest),
        Subject("smallest", space.smallest),
        Subject("largest, random weights", space.largest, trained=False),
        Subject("raw pixels"),
    ]


@dataclass(frozen=True)
class Comparison:
    """Features of subjects from a trained supernet."""

    weights: SupernetWeights
    judge: SubnetJudge

    @cached_property
    def random(self) -> SupernetWeights:
        """The initial weights of the training."""
        return random_like(self.weights, self.judge.pool.seed)

    def features(self, subject: Subject) -> LabelledFeatures:
        """Features of the labelled images, after recalibration; DataError without labels."""
        if subject.architecture is None:
            return self.judge.pixels(self.weights.space.largest.resolution)
        weights = self.weights if subject.trained else self.random
        network = weights.subnet(subject.architecture).to(memory_format=torch.channels_last)
        return self.judge.features(network, subject.architecture.resolution)

    def knn(self, subject: Subject) -> float:
        """kNN accuracy of a subject, in 0 … 1."""
        return self.judge.knn(self.features(subject))
