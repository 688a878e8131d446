"""The sandwich rule: each step trains the largest, the smallest and some random subnets.

Source: Yu and Huang, "Universally slimmable networks and improved training techniques" (ICCV
2019), section 3.1. What can be added to it: distillation of the smaller subnets within the step
(section 3.3 there; towards the moving average as in DATA's successors), a late start of the smaller
subnets (Cao et al., "SlimCLR", 2022), and weights for their losses.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgesearch.pretrain.method import Method, Views
from edgesearch.pretrain.passes import Passes
from edgesearch.pretrain.randomness import seed_of
from edgesearch.processes import distributed
from edgesearch.space import Architecture, SearchSpace

_RUNNING_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class StepResult:
    """What a step brought.

    Attributes:
        losses: The loss of each architecture, before its weight and without distillation.
        spread: How far the largest network's embeddings are apart: `spread_of` them.
        finite: Whether all was finite; if not, no weight has been changed.
    """

    losses: list[float]
    spread: float
    finite: bool


def sandwich_architectures(
    space: SearchSpace, random_subnets: int, seed: int, step: int
) -> list[Architecture]:
    """The largest, the smallest, and random architectures that depend on seed and step only."""
    rng = random.Random(seed_of(seed, step))
    return [space.largest, space.smallest, *(space.sample(rng) for _ in range(random_subnets))]


def spread_of(embeddings: torch.Tensor) -> torch.Tensor:
    """How far embeddings are apart: 0 if all are the same, 1 if they point in all directions.

    Source: Chen and He, "Exploring simple Siamese representation learning" (CVPR 2021), section
    4.1: the standard deviation of each entry, times the root of their number.

    Args:
        embeddings: (N, D), of length 1.

    Returns:
        A scalar.
    """
    return embeddings.std(dim=0).mean() * math.sqrt(embeddings.shape[1])


def sandwich_step(
    method: Method,
    views: Views,
    architectures: Sequence[Architecture],
    optimizer: torch.optim.Optimizer,
    progress: float = 0.0,
    *,
    weights: Sequence[float] | None = None,
    distill: float = 0.0,
    passes: Passes | None = None,
) -> StepResult:
    """One step of the optimizer on the summed gradients of several subnets.

    With several processes the gradients are exchanged once, after the passes of all subnets.

    Args:
        method: What computes the losses.
        views: Two views (N, C, R, R) of the same images, those of this process.
        architectures: The subnets, the largest first.
        optimizer: Of the shared weights.
        progress: Share of the training that came before this step, in [0, 1).
        weights: Of the loss of each architecture; 1 for each if None.
        distill: Weight of the squared distance, added to the loss of all but the first, between
            their embeddings of the first views and those of the key encoder (of the largest
            network in this step where a method has no key encoder).
        passes: How the batch goes through the networks; at once and in float32 if None.

    Returns:
        What the step brought.
    """
    passes = passes or Passes(method, len(views[0]) * distributed.world_size())
    optimizer.zero_grad(set_to_none=True)
    with passes.autocast(views[0].device):
        targets = method.targets(views, passes.encode)
        teacher = _teacher(method, views, passes) if distill else None
    losses: list[list[torch.Tensor]] = []
    finite: list[torch.Tensor] = []
    spread = torch.zeros(())
    for number, architecture in enumerate(architectures):
        method.activate(architecture)
        parts, seen = [], []
        for part, (part_targets, part_teacher) in passes.cut(views, (targets, teacher)):
            with passes.autocast(views[0].device):
                loss, embeddings = method.loss(part, part_targets)
            parts.append(loss.detach())
            seen.append(embeddings.detach())
            if distill and number > 0:
                assert part_teacher is not None
                loss = loss + distill * (embeddings - part_teacher).square().sum(dim=1).mean()
            loss = loss * ((weights[number] if weights else 1.0) / passes.accumulation)
            loss.backward()
            finite.append(loss.detach().isfinite())
        losses.append(parts)
        if number == 0:
            of_largest = torch.cat(seen)
            spread = spread_of(distributed.gather_rows(of_largest))
            teacher = of_largest if teacher is None and distill else teacher
    means = [sum(map(float, parts)) / len(parts) for parts in losses]
    result = exchanged(method, StepResult(means, float(spread), all(map(bool, finite))))
    if result.finite:
        optimizer.step()
        method.after_step(targets, progress)
    return result


def exchanged(method: Method, result: StepResult) -> StepResult:
    """Give all processes the means of their gradients, statistics and losses: once a step.

    Args:
        method: Has the gradients and, as buffers, the running statistics.
        result: What the step brought to this process, but for the spread, which is of all.
    """
    if distributed.world_size() == 1:
        return result
    gradients = [weight.grad for weight in method.parameters() if weight.grad is not None]
    statistics = [
        tensor for name, tensor in method.named_buffers() if name.endswith(_RUNNING_STATISTICS)
    ]
    figures = [*result.losses, float(not result.finite)]
    *losses, failed = distributed.average([*gradients, *statistics], figures)
    return StepResult(losses, result.spread, failed == 0)


@torch.no_grad()
def _teacher(method: Method, views: Views, passes: Passes) -> torch.Tensor | None:
    """The key encoder's embeddings of the first views, None without a key encoder."""
    if method.key is None:
        return None
    embeddings: torch.Tensor = passes.encode(method.key, views[0], shuffled=False)
    return embeddings
