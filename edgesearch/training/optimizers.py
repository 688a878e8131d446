"""Optimizers: SGD, AdamW, and LARS with layer-wise learning rates.

Source: You et al., "Large batch training of convolutional networks" (2017, arXiv 1708.03888),
algorithm 1; excluding biases and normalisations as in SimCLR (ICML 2020) and BYOL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch


class LARS(torch.optim.Optimizer):
    """SGD with momentum and layer-wise adaptive rates; `trust` is η.

    Tensors with fewer than two dimensions (biases, normalisations) are neither adapted nor decayed.
    The norm of a supernet layer covers all of its weights, whichever part a subnet uses.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all weights that have gradients; closures are not supported."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            updates = self._updates(weights, group["weight_decay"], group["trust"])
            buffers = [self._buffer(weight) for weight in weights]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates, alpha=group["lr"])
            torch._foreach_sub_(weights, buffers)

    def _updates(
        self, weights: list[torch.Tensor], weight_decay: float, trust: float
    ) -> list[torch.Tensor]:
        """The gradients; those of layers with decay and scaled to η·|w|."""
        updates = [weight.grad for weight in weights if weight.grad is not None]
        layers = [number for number, weight in enumerate(weights) if weight.ndim > 1]
        if not layers:
            return updates
        own = [weights[number] for number in layers]
        changes = torch._foreach_add(
            [updates[number] for number in layers], own, alpha=weight_decay
        )
        lengths = zip(torch._foreach_norm(own), torch._foreach_norm(changes), strict=True)
        torch._foreach_mul_(changes, [_local_rate(*pair, trust) for pair in lengths])
        for number, change in zip(layers, changes, strict=True):
            updates[number] = change
        return updates

    def _buffer(self, weight: torch.Tensor) -> torch.Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state["momentum_buffer"]


def _local_rate(length: torch.Tensor, change: torch.Tensor, trust: float) -> torch.Tensor:
    """η·|w| / |∇ + β·w|; 1 if either norm is 0, as in fresh weights."""
    return torch.where((length > 0) & (change > 0), trust * length / change, 1.0)


def adamw(
    params: Iterable[torch.nn.Parameter], lr: float, *, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW; biases and normalisations do not decay, `momentum` is β1.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019).
    """
    weights = list(params)
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in weights if weight.ndim > 1]},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr, (momentum, 0.999), weight_decay=weight_decay, fused=True)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, fused=True),
    "adamw": adamw,
    "lars": LARS,
}


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer state, but keep this machine's choice of fused and foreach."""
    ways = ("fused", "foreach")
    own = [{way: group[way] for way in ways if way in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, way in zip(optimizer.param_groups, own, strict=True):
        group.update(way)
