"""The sandwich rule: each step trains the largest, the smallest and some random subnets.

Source: Yu and Huang, "Universally slimmable networks and improved training techniques" (ICCV
2019), section 3.1.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from edgesearch.pretrain.randomness import seed_of
from edgesearch.space import Architecture, SearchSpace


class Method(Protocol):
    """A self-supervised method, as the sandwich step sees it."""

    def activate(self, architecture: Architecture) -> None:
        """Make an architecture the one that `loss` trains."""

    def targets(self, views: tuple[torch.Tensor, torch.Tensor]) -> Any:
        """What all subnets of a step are compared with; computed once a step."""

    def loss(self, views: tuple[torch.Tensor, torch.Tensor], targets: Any) -> torch.Tensor:
        """The loss of the active architecture, a scalar."""

    def after_step(self, targets: Any) -> None:
        """What the method does once after the weights have changed."""


def sandwich_architectures(
    space: SearchSpace, random_subnets: int, seed: int, step: int
) -> list[Architecture]:
    """The largest, the smallest, and random architectures that depend on seed and step only."""
    rng = random.Random(seed_of(seed, step))
    return [space.largest, space.smallest, *(space.sample(rng) for _ in range(random_subnets))]


def sandwich_step(
    method: Method,
    views: tuple[torch.Tensor, torch.Tensor],
    architectures: Sequence[Architecture],
    optimizer: torch.optim.Optimizer,
) -> list[float]:
    """One step of the optimizer on the summed gradients of several subnets.

    Args:
        method: What computes the losses.
        views: Two views (N, C, R, R) of the same images.
        architectures: The subnets.
        optimizer: Of the shared weights.

    Returns:
        The loss of each architecture. If one is not finite, no weight has been changed.
    """
    optimizer.zero_grad(set_to_none=True)
    targets = method.targets(views)
    losses = []
    for architecture in architectures:
        method.activate(architecture)
        loss = method.loss(views, targets)
        loss.backward()
        losses.append(loss.detach())
    values = [float(loss) for loss in losses]
    if all(map(_finite, values)):
        optimizer.step()
        method.after_step(targets)
    return values


def _finite(value: float) -> bool:
    return abs(value) != float("inf") and value == value
