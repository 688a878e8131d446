"""A whole network of a latency table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NetworkMeasurement:
    """A whole network that was measured.

    Args:
        key: Its key in the table.
        architecture: Its architecture, as plain JSON values.
        low_ms: What a run takes when nothing disturbs.
        median_ms: Median of a run.
        p95_ms: 95th percentile of a run.
        interval_ms: Where the median is with 95 % confidence.
    """

    key: str
    architecture: dict[str, Any]
    low_ms: float
    median_ms: float
    p95_ms: float
    interval_ms: tuple[float, float]
