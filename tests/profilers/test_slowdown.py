"""What the reference workload says of a machine, on tables that were written by hand."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from profilers.latency_table import LatencyTable, Slowdown
from profilers.workload import OVERHEAD_KEY, REFERENCE_KEY

Write = Callable[..., Path]
Line = dict[str, Any]


def rounds(
    key: str, kind: str, ms: Sequence[float], session: int, anchor: bool = False
) -> list[Line]:
    """A round for each figure, with a run that took so long and a slower one."""
    return [
        {
            **{"key": key, "kind": kind, "session": session, "round": number},
            **{"samples_ms": [3 * each, each], "anchor": anchor},
        }
        for number, each in enumerate(ms, 1)
    ]


def reference(session: int, *ms: float) -> list[Line]:
    """The reference, at the begin and the end of each round."""
    begins, ends = (rounds(REFERENCE_KEY, "reference", ms[at::2], session) for at in (0, 1))
    return [line for pair in zip(begins, ends, strict=True) for line in pair]


def networks(session: int, *ms: float) -> list[Line]:
    return [
        line
        for name, factor in (("a", 1), ("b", 2), ("c", 3))
        for line in rounds(name, "network", [factor * each for each in ms], session, session > 1)
    ]


def slowdown(write: Write, *lines: Line) -> Slowdown | None:
    return LatencyTable.load(write(*lines)).slowdown()


def test_each_is_its_own(write: Write) -> None:
    lines = [*reference(1, 1, 1, 1, 1), *networks(1, 2, 2)]
    lines += [*reference(2, 9, 9, 9, 9), *networks(2, 3, 3)]
    lines += [*reference(3, 1.2, 1.2, 1.2, 1.2), *networks(3, 5, 5)]
    assert slowdown(write, *lines) == Slowdown(pytest.approx(2.5), pytest.approx(1.2))


@pytest.mark.parametrize("calm", range(4))
def test_every_look_at_the_reference_counts(write: Write, calm: int) -> None:
    looks = [2.0] * 4
    looks[calm] = 1.0
    lines = [*reference(1, *looks), *networks(1, 2, 2), *reference(2, 1, 1), *networks(2, 2)]
    assert slowdown(write, *lines) == Slowdown(pytest.approx(1), pytest.approx(1))


def test_a_busy_machine_is_no_slower_one(write: Write) -> None:
    lines = [*reference(1, *[1] * 8), *networks(1, *[2] * 4)]
    lines += [*reference(2, *[1.1] * 7, 1), *networks(2, 5, 5, 2, 5)]
    assert slowdown(write, *lines) == Slowdown(pytest.approx(1), pytest.approx(1))


def test_with_nothing_to_compare_nothing_is_said(write: Write) -> None:
    here = [*reference(1, 1, 1), *networks(1, 2)]
    overhead = [
        *rounds(OVERHEAD_KEY, "overhead", [1], 1),
        *rounds(OVERHEAD_KEY, "overhead", [1], 2),
    ]
    assert slowdown(write) is None
    assert slowdown(write, *here) is None
    assert slowdown(write, *here, *networks(2, 2)) is None
    assert slowdown(write, *here, *overhead, *reference(2, 1, 1)) is None


@pytest.mark.parametrize(("chip", "is_compared"), [("one", True), ("another", False)])
def test_another_machine_is_expected_to_differ(write: Write, chip: str, is_compared: bool) -> None:
    lines = []
    for session, each in ((1, "one"), (2, chip)):
        facts = {"type": "session", "session": session, "measure": {}}
        lines += [{**facts, "fingerprint": {"chip": each}}]
        lines += [*reference(session, 1, 1), *networks(session, 2)]
    assert (slowdown(write, *lines) is not None) == is_compared
