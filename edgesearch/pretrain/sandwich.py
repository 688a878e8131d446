"""The sandwich rule: each step trains the largest, the smallest and some random subnets.

Source: Yu and Huang, "Universally slimmable networks and improved training techniques" (ICCV
2019), section 3.1. Options: distillation of the smaller subnets within the step (section 3.3
there; towards the moving average as in DATA's successors), a late start of the smaller subnets
(Cao et al., "SlimCLR", 2022), and loss weights.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgesearch.pretrain.method import Method, Views
from edgesearch.pretrain.passes import Passes
from edgesearch.processes import distributed
from edgesearch.space import Architecture, SearchSpace
from edgesearch.training.randomness import seed_of

_RUNNING_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class StepResult:
    """Losses of the architectures by the method alone, unweighted, and spread of the largest.

    If not `finite`, the weights are unchanged.
    """

    losses: list[float]
    spread: float
    finite: bool


def sandwich_architectures(
    space: SearchSpace, random_subnets: int, seed: int, step: int
) -> list[Architecture]:
    """Largest, smallest and random architectures; depends on seed and step only."""
    rng = random.Random(seed_of(seed, step))
    return [space.largest, space.smallest, *(space.sample(rng) for _ in range(random_subnets))]


def spread_of(embeddings: torch.Tensor) -> torch.Tensor:
    """Spread of embeddings (N, D) of length 1: 0 if all are equal, 1 if uniform on the sphere.

    The standard deviation of each entry times √D (Chen and He, "Exploring simple Siamese
    representation learning", CVPR 2021, section 4.1).
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
    clip_gradient: float | None = None,
    passes: Passes | None = None,
) -> StepResult:
    """One optimizer step on the summed gradients of several subnets.

    Processes exchange gradients once, after the passes of all subnets.

    Args:
        method: Computes the losses.
        views: The views of this process's images.
        architectures: The subnets, the largest first.
        optimizer: Optimizer of the shared weights.
        progress: Completed share of the training, in [0, 1).
        weights: Loss weight of each architecture; 1 if None.
        distill: Weight of the squared distance, added to all losses but the first, between the
            embeddings of the first views and those of the key encoder (of the largest network in
            this step if the method has no key encoder).
        clip_gradient: Largest norm of the gradient of all weights; None for no limit.
        passes: Passes of the batch; one pass in float32 if None.
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
                loss, embeddings, feature_map = method.loss(part, part_targets)
                parts.append(loss.detach())
                if method.second_lesson is not None:
                    loss = loss + method.second_lesson(feature_map, part[-1])
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
        if clip_gradient is not None:
            torch.nn.utils.clip_grad_norm_(method.parameters(), clip_gradient)
        optimizer.step()
        method.after_step(targets, progress)
        if method.second_lesson is not None:
            method.second_lesson.lesson.after_step(views[-1])
    return result


def exchanged(method: Method, result: StepResult) -> StepResult:
    """Average gradients, running statistics and losses over all processes, once per step.

    The spread in `result` already covers all processes.
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
    """The key encoder's embeddings of the first views, if there is a key encoder."""
    if method.key is None:
        return None
    return passes.encode(method.key, views[0], shuffled=False)
