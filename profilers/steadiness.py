"""Whether the machine was in the same state all the time, as told by the reference workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNSETTLED_SHARE = 0.1
"""A machine has settled if at most so many of the keys lack rounds or a narrow interval."""


@dataclass(frozen=True)
class Steadiness:
    """How steady a machine was while a table was measured.

    Attributes:
        stretches: How often the reference was measured, in all sessions.
        disturbed: Stretches from one time to the next in which it was slow: what was measured in
            them does not count.
        reference_spread: 95th percentile of the reference against its lower quartile, less 1.
        keys: Number of keys that were measured.
        unsettled: Keys whose rounds do not suffice, or whose low quantile is not known well
            enough.
        settled: Whether these are few enough for figures of the table to be relied on.
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
    """The reference's latency when nothing disturbs: the lower quartile.

    Args:
        levels_ms: Its fastest run each time that it was measured.
    """
    return float(np.quantile(levels_ms, 0.25))


def disturbed_stretches(levels_ms: Sequence[float], tolerance: float) -> frozenset[int]:
    """Stretches of a session in which the machine was slower than else: busy, or throttled.

    A stretch is what lies between two measurements of the reference; stretch n begins with the
    n-th of them. It is judged against all of the session, so that a slow beginning is found out
    later, too.

    Args:
        levels_ms: The reference's fastest run each time that it was measured, in order.
        tolerance: By which share the reference may be slower, at the begin and end of a stretch.
    """
    if not levels_ms:
        return frozenset()
    bound_ms = (1 + tolerance) * base_level_ms(levels_ms)
    return frozenset(
        number
        for number in range(1, len(levels_ms) + 1)
        if max(levels_ms[number - 1 : number + 1]) > bound_ms
    )
