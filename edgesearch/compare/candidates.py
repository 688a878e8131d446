"""The networks that a comparison is about."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgesearch.space import Architecture, SearchSpace
from edgesearch.space.digits import spread_digits
from edgesearch.space.public_weights import Normalisation
from edgesearch.tasks.baselines import Baseline
from edgesearch.tasks.finetuning import Finetuning
from edgesearch.tasks.model import TaskModel

WINNER, END, SCALED, RANDOM, BASELINE = "winner", "end", "scaled", "random", "baseline"
"""Kinds of candidates."""
BANDS = (0.03, 0.1, 0.3)
"""How far the latency of a random architecture may be from the wanted one, as a share; a wider
band serves only if the narrower one has too few."""
DRAWN = 50_000
"""Sample that random architectures of a latency are chosen from."""
LEVELS = 257
"""Steps of the uniformly scaled network from the smallest to the largest architecture."""
Predict = Callable[[np.ndarray], np.ndarray]
"""Predicted medians in ms, (n,), of digits (n, d)."""


@dataclass(frozen=True)
class Candidate:
    """A network to train and to measure: an architecture of the space, or a known network.

    Attributes:
        kind: One of the constants of this module.
        resolution: Height and width of the images, in pixels.
    """

    name: str
    kind: str
    resolution: int
    architecture: Architecture | None = None
    baseline: Baseline | None = None

    @classmethod
    def subnet(cls, name: str, kind: str, architecture: Architecture) -> Candidate:
        """An architecture of the space."""
        return cls(name, kind, architecture.resolution, architecture)

    @property
    def folder(self) -> str:
        """Name of its folder, which no other network has."""
        if self.baseline is None:
            return str(self.architecture)
        return f"{self.baseline.name.replace('/', '_')}_r{self.resolution}"

    @property
    def beginning(self) -> str:
        """What its weights are before the training, where they are not those of the supernet."""
        if self.baseline is None:
            return "supernet"
        return "random" if self.baseline.weights is None else "public"

    @property
    def about(self) -> dict[str, Any]:
        """What its training depends on, in plain values."""
        if self.baseline is None:
            return {"architecture": str(self.architecture)}
        return {
            "network": self.baseline.name,
            "resolution": self.resolution,
            **self.baseline.origin,
        }

    @property
    def normalisation(self) -> Normalisation | None:
        """Mean and deviation of pixels that it expects; None for those of the images."""
        return None if self.baseline is None else self.baseline.normalisation

    def ready(self, finetuning: Finetuning, seed: int) -> tuple[Finetuning, TaskModel]:
        """Recipe and untrained network for a seed."""
        own = replace(finetuning, seed=seed, normalisation=self.normalisation)
        if self.baseline is not None:
            dense = own.record.head_class(own.settings.head).dense
            return own, own.whole(self.baseline.backbone(self.resolution, dense, seed))
        assert self.architecture is not None
        return own, own.subnet(self.architecture)


def distinct(candidates: Collection[Candidate]) -> tuple[list[Candidate], dict[str, str]]:
    """The candidates that differ, and for the others the name of the one that each equals."""
    first: dict[str, Candidate] = {}
    same: dict[str, str] = {}
    for candidate in candidates:
        known = first.setdefault(candidate.folder, candidate)
        if known is not candidate:
            same[candidate.name] = known.name
    return list(first.values()), same


def of_latency(
    space: SearchSpace,
    predict: Predict,
    wanted_ms: float,
    count: int,
    seed: int,
    others: Collection[Architecture] = (),
) -> list[Architecture]:
    """Random architectures whose predicted latency is near a wanted one; fewer if there are fewer.

    Args:
        space: The search space.
        predict: See `Predict`.
        wanted_ms: Latency in ms.
        count: Number of architectures.
        seed: Seed of the draw.
        others: Architectures that are left out.
    """
    rng = np.random.default_rng(seed)
    digits = np.unique(spread_digits(space, DRAWN, rng), axis=0)
    ratio = predict(digits) / wanted_ms
    found: list[Architecture] = []
    for band in BANDS:
        rows = rng.permutation(np.flatnonzero(np.abs(ratio - 1) <= band))
        for row in rows:
            if len(found) == count:
                return found
            drawn = space.from_digits(digits[row])
            if drawn not in others and drawn not in found:
                found.append(drawn)
    return found


def uniformly_scaled(space: SearchSpace, predict: Predict, wanted_ms: float) -> Architecture:
    """The architecture with all choices at one level whose predicted latency is the nearest.

    Source of the idea: Tan and Le, "EfficientNet" (ICML 2019), section 3 (compound scaling).
    """
    lengths = np.array([len(values) for values in space.choices.values()])
    levels = np.linspace(0, 1, LEVELS)[:, None]
    digits = np.unique(np.rint(levels * (lengths - 1)).astype(int), axis=0)
    return space.from_digits(digits[int(np.abs(predict(digits) - wanted_ms).argmin())])
