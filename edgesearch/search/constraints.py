"""Which architectures of a space keep the budgets."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np

from edgesearch.search.infeasible import infeasible
from edgesearch.search.settings import Budgets, Range
from edgesearch.space import Architecture, SearchSpace


@dataclass(frozen=True)
class DeviceLatencies:
    """What is predicted for all architectures on one device.

    Attributes:
        latency_ms: (size,) medians, infinite where the device cannot run it.
        p95_ratio: 95th percentile of an architecture divided by its median.
    """

    latency_ms: np.ndarray
    p95_ratio: float


class FeasibleSet:
    """What is known of all architectures of a space, and which of them keep the budgets.

    `cannot_run` is the number of those that a device cannot run, which keep no budget. `parts` has
    a set like this one for each budget of the latency; it is their union.

    Args:
        space: The search space.
        latency_ms: (size,) predicted medians, infinite where the device cannot run it.
        budgets: The bounds.
        p95_ratio: 95th percentile of an architecture divided by its median.
        value_bytes: Bytes of a weight or activation in the device's precision.
        batch: Images in each run on the device.
        devices: Further devices, by name.
        notes: What an error says beside a bound, by its name.

    Raises:
        InfeasibleError: No architecture keeps them all; says how far off the nearest is.
    """

    def __init__(
        self,
        space: SearchSpace,
        latency_ms: np.ndarray,
        budgets: Budgets,
        p95_ratio: float,
        *,
        value_bytes: int = 4,
        batch: int = 1,
        devices: Mapping[str, DeviceLatencies] | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self.space = space
        self.budgets = budgets
        self._notes = notes or {}
        live = space.max_over_blocks(lambda block: block.live_values)
        params = space.sum_over_blocks(lambda block: block.params)
        self.costs = {
            "latency_ms": latency_ms,
            "latency_p95_ms": latency_ms * p95_ratio,
            "params": params,
            "macs": space.sum_over_blocks(lambda block: block.macs),
            "activation_bytes": live * value_bytes * batch,
            "weight_bytes": params * value_bytes,
        }
        self._runnable = np.isfinite(latency_ms)
        for name, latencies in (devices or {}).items():
            median_ms = latencies.latency_ms
            self.costs[f"devices.{name}.latency_ms"] = median_ms
            self.costs[f"devices.{name}.latency_p95_ms"] = median_ms * latencies.p95_ratio
            self._runnable &= np.isfinite(median_ms)
        self.cannot_run = space.size - int(self._runnable.sum())
        self.parts = tuple(self._part(single) for single in budgets.each())
        self.mask: np.ndarray = reduce(np.logical_or, (part.mask for part in self.parts))
        self.indices = np.flatnonzero(self.mask)

    def __contains__(self, architecture: Architecture) -> bool:
        return bool(self.mask[self.space.index(architecture)])

    def cost(self, name: str, architecture: Architecture) -> float:
        """What an architecture costs.

        Args:
            name: latency_ms, latency_p95_ms, params, macs, activation_bytes, weight_bytes, or
                devices.NAME.latency_ms and devices.NAME.latency_p95_ms.
            architecture: Of the space.
        """
        return float(self.costs[name][self.space.index(architecture)])

    def upper(self, name: str) -> float | None:
        """The upper bound on a cost, by its name; None without one. Of one of the parts."""
        return self.budgets.ranges().get(name, Range()).max

    def _part(self, budgets: Budgets) -> FeasibleSet:
        """The same for one budget of the latency."""
        part = copy.copy(self)
        part.budgets = budgets
        ranges = budgets.ranges()
        part.mask = reduce(
            np.logical_and,
            (within(self.costs[name], bound) for name, bound in ranges.items()),
            self._runnable,
        )
        part.indices = np.flatnonzero(part.mask)
        part.parts = (part,)
        if not len(part.indices):
            costs = {name: self.costs[name] for name in ranges}
            raise infeasible(self.space, costs, ranges, self._runnable, self._notes)
        return part


def within(cost: np.ndarray, bound: Range) -> np.ndarray:
    """Where a cost is in a range."""
    low, high = bound.ends
    return (low <= cost) & (cost <= high)
