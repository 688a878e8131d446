"""Whether the figures of a table can be trusted: how steady the machine was meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNSETTLED_SHARE = 0.1
"""Largest share of latencies that may be uncertain for a table to be trusted."""
WIDE_P95 = 2.0
"""Ratio of 95th percentile to median from which a table is not trusted."""
TOLD_OTHERS = 0.1
"""Processors used by other programs that are told."""


@dataclass(frozen=True)
class Look:
    """What a measurement of the reference workload tells of the machine.

    Attributes:
        level_ms: Its fastest run.
        others: Processors used by other programs since the look before; None if unknown.
        crowded: Whether those were more than there are to spare.
    """

    level_ms: float
    others: float | None = None
    crowded: bool = False


@dataclass(frozen=True)
class Steadiness:
    """How steady a machine was while a table was measured.

    Attributes:
        rounds: Measurements made: rounds of all keys but the profiler's own.
        discarded: Those that do not count: interrupted by other programs, or made while the machine
            was slow or crowded.
        interrupted: Those of them in which other programs interrupted every run.
        others: Mean number of processors that other programs used; None if unknown.
        reference_spread: Ratio of the reference's 95th percentile to its lower quartile, minus 1.
        p95_ratio: Ratio of 95th percentile to median of a key's runs: its median over keys.
        keys: Number of measured keys.
        unsettled: Keys with too few rounds that count, or too wide an interval.
        short: Keys of `unsettled` that only lack rounds: time or rounds ran out.
        interval: Share of a latency within which it must be known.
        settled: Whether the latencies can be trusted.
    """

    rounds: int
    discarded: int
    interrupted: int
    others: float | None
    reference_spread: float
    p95_ratio: float
    keys: int
    unsettled: tuple[str, ...]
    short: int
    interval: float
    settled: bool

    def __str__(self) -> str:
        if self.settled:
            return f"the latencies can be trusted: {self._known()}; {self._discarded()}"
        if not self.discarded and self.short == len(self.unsettled) and self.p95_ratio < WIDE_P95:
            return (
                f"the latencies are preliminary: {self.short} of {self.keys} have fewer rounds "
                "than were asked for, since the time was up; give it more (profile.max_seconds)"
            )
        wide = (
            f"; the 95th percentile of a run is {self.p95_ratio:.1f} times its median"
            if self.p95_ratio >= WIDE_P95
            else ""
        )
        mostly = 2 * len(self.unsettled) < self.keys and not wide
        verdict = "some latencies are uncertain" if mostly else "these latencies are unreliable"
        return (
            f"{verdict}: {self._known()}; {self._discarded()}{wide}; stop other programs and "
            "measure again"
        )

    @property
    def of_table(self) -> str:
        """The same with the command that replaces a latency table."""
        again = ": `edgesearch profile CONFIG --again` keeps the former table and measures anew"
        return f"{self}{'' if self.settled else again}"

    def _known(self) -> str:
        within = f"known within {self.interval:.0%}"
        if not self.unsettled:
            return f"all {self.keys} are {within}"
        return f"{self.keys - len(self.unsettled)} of {self.keys} are {within}"

    def _discarded(self) -> str:
        crowd = (
            f"other programs used {self.others:.1f} processors meanwhile"
            if self.others is not None and self.others >= TOLD_OTHERS
            else ""
        )
        if not self.discarded:
            return "no measurement was discarded" + (f", though {crowd}" if crowd else "")
        slow = self.discarded - self.interrupted
        causes = [
            *([f"{self.interrupted} interrupted by other programs"] if self.interrupted else ()),
            *([f"{slow} while the machine was slow or busy"] if slow else ()),
        ]
        text = f"{self.discarded} of {self.rounds} measurements were discarded"
        return f"{text} ({', '.join(causes)})" + (f"; {crowd}" if crowd else "")


def base_level_ms(levels_ms: Sequence[float]) -> float:
    """The reference's undisturbed latency: lower quartile of its fastest runs."""
    return float(np.quantile(levels_ms, 0.25))


def disturbed_stretches(looks: Sequence[Look], tolerance: float) -> frozenset[int]:
    """Stretches of a session in which the machine was slow or crowded.

    Stretch n is the time from the n-th reference measurement to the next. It is compared with the
    whole session, so that a slow start is detected later, too.

    Args:
        looks: Measurements of the reference, in order.
        tolerance: By which share the reference may be slower at start and end of a stretch.
    """
    if not looks:
        return frozenset()
    bound_ms = (1 + tolerance) * base_level_ms([look.level_ms for look in looks])
    return frozenset(
        number
        for number in range(1, len(looks) + 1)
        if max(look.level_ms for look in looks[number - 1 : number + 1]) > bound_ms
        or (number < len(looks) and looks[number].crowded)
    )
