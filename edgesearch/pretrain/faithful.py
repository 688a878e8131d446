"""MoCo v2's step in the order of DATA's released code, for ablation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from edgesearch.errors import TrainingError
from edgesearch.pretrain.method import Method, Views
from edgesearch.pretrain.moco_v2 import MoCoV2
from edgesearch.pretrain.passes import Passes
from edgesearch.pretrain.sandwich import StepResult, exchanged, sandwich_step, spread_of
from edgesearch.processes import distributed
from edgesearch.space import Architecture

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import PretrainSettings

Step = Callable[..., StepResult]
"""`sandwich_step` or `faithful_step` with the arguments of the settings bound."""


def faithful_step(
    method: MoCoV2,
    views: Views,
    architectures: Sequence[Architecture],
    optimizer: torch.optim.Optimizer,
    progress: float = 0.0,
    *,
    passes: Passes | None = None,
) -> StepResult:
    """A step in the order of DATA's released code; see `sandwich_step`.

    Each subnet's pass updates the key encoder, encodes the keys again and enqueues them. So the key
    encoder moves several times per step, towards the weights of the previous step, and the queue
    holds each image several times, including negatives that show the query's image. Accumulation is
    not supported. If a loss is not finite, queue and key encoder have changed nevertheless.
    """
    passes = passes or Passes(method, len(views[0]) * distributed.world_size())
    optimizer.zero_grad(set_to_none=True)
    losses, spreads = [], []
    for architecture in architectures:
        method.activate(architecture)
        method.move_key_encoder()
        with passes.autocast(views[0].device):
            targets = method.targets(views, passes.encode)
            loss, embeddings, _ = method.loss(views, targets)
        loss.backward()
        method.queue.put(targets)
        losses.append(float(loss.detach()))
        spreads.append(float(spread_of(distributed.gather_rows(embeddings.detach()))))
    result = StepResult(losses, spreads[0], all(map(math.isfinite, losses)))
    result = exchanged(method, result)
    if result.finite:
        optimizer.step()
    return result


def choose_step(method: Method, settings: PretrainSettings) -> Step:
    """The step function of the settings.

    Raises:
        TrainingError: `pretrain.faithful` does not support the other settings.
    """
    weights, distill, accumulation = settings.loss_weights, settings.distill, settings.accumulation
    if not settings.faithful:
        largest, smallest, each_random = weights
        each = [largest, smallest, *[each_random] * settings.random_subnets]
        clip = settings.clip_gradient
        return partial(sandwich_step, weights=each, distill=distill, clip_gradient=clip)
    if isinstance(method, MoCoV2) and (weights, distill, accumulation) == ((1, 1, 1), 0, 1):
        return faithful_step
    raise TrainingError(
        "moco_v2 without distillation, loss weights and accumulation for pretrain.faithful",
        f"{type(method).__name__}, distill {distill}, loss_weights {weights}, "
        f"accumulation {accumulation}",
        "Set pretrain.faithful=false.",
    )
