"""Whether the machine was in the same state all the time, as told by the reference workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

UNSETTLED_SHARE = 0.1
"""A machine has settled if at most so many of the keys lack rounds or a narrow interval."""


@dataclass(frozen=True)
class Steadiness:
    """How steady a machine was while a table was measured.

    Attributes:
        rounds: Rounds that were made, in all sessions.
        disturbed: Those of them in which the reference was slow; they do not count.
        reference_spread: 95th percentile of the reference against its lower quartile, less 1.
        keys: Number of keys that were measured.
        unsettled: Keys whose rounds do not suffice, or whose low quantile is not known well
            enough.
        settled: Whether these are few enough for figures of the table to be relied on.
    """

    rounds: int
    disturbed: int
    reference_spread: float
    keys: int
    unsettled: tuple[str, ...]
    settled: bool

    def __str__(self) -> str:
        verdict = "the machine was steady" if self.settled else "THE MACHINE NEVER SETTLED"
        return (
            f"{verdict}: {self.disturbed} of {self.rounds} rounds were disturbed and do not count, "
            f"{len(self.unsettled)} of {self.keys} keys are not known well enough "
            f"(reference workload +{self.reference_spread:.1%})"
        )


def base_level_ms(levels_ms: Mapping[int, Sequence[float]]) -> float:
    """The reference's latency when nothing disturbs: the lower quartile.

    Args:
        levels_ms: For each round the fastest runs of the reference, at its begin and end.
    """
    return float(np.quantile(np.concatenate([np.asarray(v) for v in levels_ms.values()]), 0.25))


def disturbed_rounds(levels_ms: Mapping[int, Sequence[float]], tolerance: float) -> frozenset[int]:
    """Rounds of a session in which the machine was slower than else: busy, or throttled.

    Judged against all rounds of the session, so that a slow beginning is found out later, too.

    Args:
        levels_ms: For each round the fastest runs of the reference, at its begin and end.
        tolerance: By which share the reference may be slower there.
    """
    if not levels_ms:
        return frozenset()
    bound_ms = (1 + tolerance) * base_level_ms(levels_ms)
    return frozenset(number for number, values in levels_ms.items() if max(values) > bound_ms)
