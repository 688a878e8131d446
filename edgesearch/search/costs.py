"""Costs of architectures on the devices of a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from devices import DeviceSpec
from edgesearch.formats.precisions import precision_of
from edgesearch.search.settings import Range
from edgesearch.space import Architecture, SearchSpace

CostOf = Callable[[np.ndarray | None], np.ndarray]
"""Digits (n, d) of architectures, or None for the whole space, to costs (n,)."""


@dataclass(frozen=True)
class DeviceLatencies:
    """Predicted latencies on a device; `latency_of` says in words what they are of."""

    median_ms: CostOf
    p95_ratio: float
    latency_of: str = "backbone"

    def p95_ms(self, digits: np.ndarray | None) -> np.ndarray:
        """95th percentiles of architectures."""
        return self.median_ms(digits) * self.p95_ratio


class Costs:
    """Costs of architectures by name.

    Names: latency_ms, latency_p95_ms, params, macs, activation_bytes, weight_bytes; for further
    devices devices.NAME.latency_ms and devices.NAME.latency_p95_ms.

    Attributes:
        latencies: Names of the medians by device name, `device` first.
        latency_of: What they are of, in words.
    """

    def __init__(
        self,
        space: SearchSpace,
        device: DeviceSpec,
        own: DeviceLatencies,
        further: Mapping[str, DeviceLatencies] | None = None,
    ) -> None:
        self.space, self.device, self.latency_of = space, device, own.latency_of
        value_bytes = precision_of(device).value_bytes
        params = space.sums(lambda block: block.params)
        live = space.sums(lambda block: block.live_values, highest=True)
        self._costs: dict[str, CostOf] = {
            "latency_ms": own.median_ms,
            "latency_p95_ms": own.p95_ms,
            "params": params,
            "macs": space.sums(lambda block: block.macs),
            "activation_bytes": lambda digits: live(digits) * value_bytes * device.batch,
            "weight_bytes": lambda digits: params(digits) * value_bytes,
        }
        self.latencies = {device.name: "latency_ms"}
        for name, latencies in (further or {}).items():
            self.latencies[name] = f"devices.{name}.latency_ms"
            self._costs[f"devices.{name}.latency_ms"] = latencies.median_ms
            self._costs[f"devices.{name}.latency_p95_ms"] = latencies.p95_ms

    def __getitem__(self, name: str) -> CostOf:
        return self._costs[name]


class Rows:
    """Architectures with lazily computed costs."""

    def __init__(self, costs: Costs, digits: np.ndarray | None) -> None:
        self.costs, self.digits = costs, digits
        self._found: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._found:
            self._found[name] = self.costs[name](self.digits)
        return self._found[name]

    def architecture(self, row: int) -> Architecture:
        """The architecture of a row."""
        space = self.costs.space
        return (
            space.architecture(row) if self.digits is None else space.from_digits(self.digits[row])
        )

    @property
    def runnable(self) -> np.ndarray:
        """(n,) whether all devices can run the architecture."""
        return np.logical_and.reduce(
            [np.isfinite(self[name]) for name in self.costs.latencies.values()]
        )

    def within(self, ranges: Mapping[str, Range]) -> np.ndarray:
        """(n,) whether all devices can run it and all its costs are in range."""
        mask = self.runnable
        for name, bound in ranges.items():
            low, high = bound.ends
            mask &= (low <= self[name]) & (self[name] <= high)
        return mask

    def over(self, ranges: Mapping[str, Range]) -> dict[str, np.ndarray]:
        """Factors (n,) by which each range is exceeded: ≤ 1 within, infinite if not runnable."""
        runnable = self.runnable
        return {
            name: np.where(runnable, _over(self[name], bound), math.inf)
            for name, bound in ranges.items()
        }

    def worst(self, ranges: Mapping[str, Range]) -> np.ndarray:
        """(n,) the largest of these factors."""
        runs = np.where(self.runnable, 0.0, math.inf)
        worst: np.ndarray = np.max([runs, *self.over(ranges).values()], axis=0)
        return worst


def _over(cost: np.ndarray, bound: Range) -> np.ndarray:
    low, high = bound.ends
    over = np.zeros_like(cost)
    if math.isfinite(high):
        over = cost / high
    if math.isfinite(low):
        over = np.maximum(over, low / np.maximum(cost, 1e-12))
    return over
