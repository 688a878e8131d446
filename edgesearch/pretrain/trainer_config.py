"""How a supernet is trained, in plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from edgesearch.pretrain.lars import LARS

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, fused=True),
    "lars": LARS,
}


@dataclass(frozen=True)
class TrainerConfig:
    """How to train. The defaults are MoCo v2's.

    Attributes:
        epochs: Passes over the images.
        lr: Learning rate after warm-up; a half cosine takes it to 0.
        weight_decay: L2 penalty on all weights (LARS: not on biases and normalisations).
        momentum: Of the optimizer.
        warmup_epochs: Epochs in which the learning rate rises linearly from 0.
        optimizer: Key of `OPTIMIZERS`.
        random_subnets: Subnets in each step beside the largest and the smallest.
        largest_only_epochs: Epochs at the beginning in which the largest network trains alone.
        loss_weights: Of the largest, of the smallest and of each random subnet.
        distill: Weight of the distance of the smaller subnets' embeddings from the key encoder's.
        faithful: Steps in the order of DATA's released code; MoCo v2 only.
        monitor_every_epochs: How often the monitor runs; it runs after the last epoch too; 0
            for never.
        checkpoint_minutes: Time after which the state is saved within an epoch, too.
        tensorboard: Whether curves are written for TensorBoard.
        seed: Of data order and random subnets.
    """

    epochs: int = 200
    lr: float = 0.03
    weight_decay: float = 1e-4
    momentum: float = 0.9
    warmup_epochs: int = 0
    optimizer: str = "sgd"
    random_subnets: int = 1
    largest_only_epochs: int = 0
    loss_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    distill: float = 0.0
    faithful: bool = False
    monitor_every_epochs: int = 10
    checkpoint_minutes: float = 10.0
    tensorboard: bool = False
    seed: int = 0


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over what an optimizer remembers, but not how the machine that wrote it computed."""
    ways = ("fused", "foreach")
    own = [{way: group[way] for way in ways if way in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, way in zip(optimizer.param_groups, own, strict=True):
        group.update(way)
