"""What the user bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgesearch.errors import SearchError


@dataclass(frozen=True)
class Range:
    """Both ends of what is allowed; None leaves an end open.

    Attributes:
        min: The least.
        max: The most.

    Raises:
        SearchError: The least is above the most.
    """

    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        """Refuse a range that holds nothing."""
        if self.min is not None and self.max is not None and self.min > self.max:
            raise SearchError(
                "a range whose min is at most its max",
                f"min {self.min:g} and max {self.max:g}",
                "Swap them, or correct one.",
            )

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends as numbers, infinite where they are open."""
        low = -math.inf if self.min is None else self.min
        return low, math.inf if self.max is None else self.max


Bound = float | Range | None
"""A number is an upper bound; None bounds nothing."""


@dataclass(frozen=True)
class LatencyBudgets:
    """Bounds on the latency on one device.

    Attributes:
        latency_ms: Of the predicted median.
        latency_p95_ms: Of the predicted 95th percentile.
    """

    latency_ms: Bound = None
    latency_p95_ms: Bound = None


@dataclass(frozen=True)
class Budgets:
    """Bounds that an architecture has to keep, all of them together.

    Attributes:
        latency_ms: Of the predicted median latency on the device. Several numbers are so many
            budgets, each with winners of its own.
        latency_p95_ms: Of the predicted 95th percentile of the latency on the device.
        params: Of the learnable parameters.
        macs: Of the multiply-accumulates for one image.
        activation_bytes: Of the peak of the activations that are live at the same time.
        weight_bytes: Of the parameters in the device's precision: what a file of the network holds
            at least.
        devices: Of latencies on further devices, by name.

    Raises:
        SearchError: The list of budgets of the latency is empty.
    """

    latency_ms: Bound | tuple[float, ...] = None
    latency_p95_ms: Bound = None
    params: Bound = None
    macs: Bound = None
    activation_bytes: Bound = None
    weight_bytes: Bound = None
    devices: Mapping[str, LatencyBudgets] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an empty list."""
        if self.latency_ms == ():
            raise SearchError(
                "at least one budget in the list latency_ms", "an empty list", "Name one, or none."
            )

    def each(self) -> tuple[Budgets, ...]:
        """One for each budget of the latency, in their order."""
        if not isinstance(self.latency_ms, tuple):
            return (self,)
        return tuple(replace(self, latency_ms=most) for most in dict.fromkeys(self.latency_ms))

    def ranges(self) -> dict[str, Range]:
        """What is bounded, by the path of its key below `search.budgets`; not of a list."""
        found: dict[str, Any] = {
            name: value for name, value in vars(self).items() if name != "devices"
        }
        for device, latency in self.devices.items():
            found |= {f"devices.{device}.{name}": value for name, value in vars(latency).items()}
        ranges = {
            name: bound if isinstance(bound, Range) else Range(max=bound)
            for name, bound in found.items()
            if bound is not None
        }
        return {name: bound for name, bound in ranges.items() if bound != Range()}
