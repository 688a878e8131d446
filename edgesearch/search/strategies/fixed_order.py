"""Architectures in an order that is known beforehand."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np

from edgesearch.space import Architecture, SearchSpace


class FixedOrder:
    """Hands out the architectures of given numbers, batch by batch.

    Args:
        space: The search space.
        indices: (n,) numbers of architectures.
        batch: Architectures at a time.
    """

    def __init__(self, space: SearchSpace, indices: np.ndarray, batch: int) -> None:
        self._batch = batch
        self._architectures = (space.architecture(int(index)) for index in indices)

    def next_batch(self, but: Collection[Architecture] = ()) -> tuple[Architecture, ...]:
        """The next ones, without some; fewer, or none, when they are used up."""
        left = (architecture for architecture in self._architectures if architecture not in but)
        return tuple(itertools.islice(left, self._batch))
