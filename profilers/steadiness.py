"""Whether the machine's state was constant, judged by the reference workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNSETTLED_SHARE = 0.1
"""Largest share of unsettled keys for a machine to count as settled."""


@dataclass(frozen=True)
class Steadiness:
    """How steady a machine was while a table was measured.

    Attributes:
        stretches: Number of reference measurements in all sessions.
        disturbed: Number of stretches, from one reference measurement to the next, in which the
            reference was slow; their measurements do not count.
        reference_spread: Ratio of the reference's 95th percentile to its lower quartile, minus 1.
        keys: Number of measured keys.
        unsettled: Keys with too few rounds, or too wide an interval of the low quantile.
        settled: Whether few enough keys are unsettled for the table to be reliable.
    """

    stretches: int
    disturbed: int
    reference_spread: float
    keys: int
    unsettled: tuple[str, ...]
    settled: bool

    def __str__(self) -> str:
        verdict = "the machine was steady" if self.settled else "THE MACHINE NEVER SETTLED"
        return (
            f"{verdict}: {self.disturbed} of {self.stretches} stretches between two looks at it "
            "were disturbed and do not count, "
            f"{len(self.unsettled)} of {self.keys} keys are not known well enough "
            f"(reference workload +{self.reference_spread:.1%})"
        )


def base_level_ms(levels_ms: Sequence[float]) -> float:
    """The reference's undisturbed latency: lower quartile of its fastest runs."""
    return float(np.quantile(levels_ms, 0.25))


def disturbed_stretches(levels_ms: Sequence[float], tolerance: float) -> frozenset[int]:
    """Stretches of a session in which the machine was busy or throttled.

    Stretch n is the time from the n-th reference measurement to the next. It is compared with the
    whole session, so that a slow start is detected later, too.

    Args:
        levels_ms: Fastest run of each measurement of the reference, in order.
        tolerance: By which share the reference may be slower at start and end of a stretch.
    """
    if not levels_ms:
        return frozenset()
    bound_ms = (1 + tolerance) * base_level_ms(levels_ms)
    return frozenset(
        number
        for number in range(1, len(levels_ms) + 1)
        if max(levels_ms[number - 1 : number + 1]) > bound_ms
    )
