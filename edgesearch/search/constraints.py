"""Budgets, and which architectures of a space meet them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgesearch.errors import InfeasibleError
from edgesearch.space import Architecture, SearchSpace


@dataclass(frozen=True)
class Budgets:
    """Upper bounds; None bounds nothing.

    Attributes:
        latency_ms: Of the predicted median latency on the device.
        latency_p95_ms: Of the predicted 95th percentile of the latency on the device.
        params: Of the learnable parameters.
        macs: Of the multiply-accumulates for one image.
    """

    latency_ms: float | None = None
    latency_p95_ms: float | None = None
    params: float | None = None
    macs: float | None = None


class FeasibleSet:
    """What is known of all architectures of a space, and which of them meet the budgets.

    `cannot_run` is the number of those that the device cannot run, which meet no budget.

    Args:
        space: The search space.
        latency_ms: (size,) predicted medians, infinite where the device cannot run it.
        budgets: The bounds.
        p95_ratio: 95th percentile of an architecture divided by its median.

    Raises:
        InfeasibleError: No architecture meets them all; says how far off the nearest is.
    """

    def __init__(
        self, space: SearchSpace, latency_ms: np.ndarray, budgets: Budgets, p95_ratio: float
    ) -> None:
        self.space = space
        self.budgets = budgets
        self.costs = {
            "latency_ms": latency_ms,
            "latency_p95_ms": latency_ms * p95_ratio,
            "params": space.sum_over_blocks(lambda block: block.params),
            "macs": space.sum_over_blocks(lambda block: block.macs),
        }
        self.mask = np.isfinite(latency_ms)
        self.cannot_run = space.size - int(self.mask.sum())
        for name, cost in self.costs.items():
            bound = getattr(budgets, name)
            if bound is not None:
                self.mask &= cost <= bound
        self.indices = np.flatnonzero(self.mask)
        if not len(self.indices):
            self._explain()

    def __contains__(self, architecture: Architecture) -> bool:
        return bool(self.mask[self.space.index(architecture)])

    def cost(self, name: str, architecture: Architecture) -> float:
        """One of latency_ms, latency_p95_ms, params and macs of an architecture."""
        return float(self.costs[name][self.space.index(architecture)])

    def _explain(self) -> None:
        bounds = {
            name: bound for name in self.costs if (bound := getattr(self.budgets, name)) is not None
        }
        runnable = np.isfinite(self.costs["latency_ms"])
        wanted = ", ".join(f"{name} ≤ {number(bound)}" for name, bound in bounds.items())
        found = (
            self._least(bounds, runnable) if runnable.any() else "the device can run none of them"
        )
        if runnable.any() and self.cannot_run:
            found += f"; {self.cannot_run:,} of {self.space.size:,} cannot run on the device"
        raise InfeasibleError(
            f"an architecture of {self.space.name!r} with {wanted or 'a finite latency'}",
            found,
            "Raise search.budgets to what can be reached, or choose a smaller space.",
        )

    def _least(self, bounds: dict[str, float], runnable: np.ndarray) -> str:
        """How far off the nearest architecture is that the device can run."""
        costs = {name: np.where(runnable, self.costs[name], math.inf) for name in bounds}
        alone = [
            f"{name} {number(bound)}, but the least that this space reaches is "
            f"{number(float(costs[name].min()))}"
            for name, bound in bounds.items()
            if costs[name].min() > bound
        ]
        if alone:
            return "; ".join(alone)
        over = np.max([costs[name] / bound for name, bound in bounds.items()], axis=0)
        nearest = int(np.argmin(over))
        reached = ", ".join(f"{name} {number(float(costs[name][nearest]))}" for name in bounds)
        return (
            f"each can be met alone, but not together; nearest to all: {reached} "
            f"({self.space.architecture(nearest)})"
        )


def number(value: float) -> str:
    """A figure for people: 12,300,000 or 1.234."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
