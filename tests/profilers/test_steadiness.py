"""Whether a table says rightly that the machine settled, after sessions that wanted this and that.

In all tables here the machine was calm but where it is said, and each key has as many rounds as are
given.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profilers import LatencyTable, MeasureConfig, Steadiness

Write = Callable[..., Path]
Line = dict[str, Any]


def session(number: int, wanted: int, /, *, calm: bool = True, **counts: int) -> list[Line]:
    """A session that wanted so many rounds, and the rounds that it made of each key."""
    config = MeasureConfig(rounds=wanted).to_dict()
    lines: list[Line] = [
        {"type": "session", "session": number, "measure": config, "fingerprint": {}}
    ]
    for turn in range(1, max(counts.values()) + 1):
        # A machine that is not calm is slow from the third round on, for one round in two.
        level = 1.0 if calm or turn < 3 or turn % 2 else 2.0
        common = {"session": number, "round": turn}
        lines.append({"kind": "reference", "key": "reference", **common, "samples_ms": [level]})
        for key, count in counts.items():
            if turn <= count:
                lines.append({"kind": KINDS[key[0]], "key": key, **common, "samples_ms": [2.0]})
    return lines


KINDS = {"a": "block", "b": "block", "n": "network", "w": "winner", "v": "validation"}


@pytest.fixture
def judged(write: Write) -> Callable[..., Steadiness]:
    """The verdict on some sessions, by the rounds of all but held-out networks asked for."""

    def judged(*sessions: list[Line], asked: int = 0) -> Steadiness:
        table = LatencyTable.load(write(*(line for lines in sessions for line in lines)))
        return table.steadiness(dict.fromkeys(("block", "network", "winner"), asked))

    return judged


Judged = Callable[..., Steadiness]


def test_a_session_that_wants_more_of_its_own_takes_nothing_from_others(judged: Judged) -> None:
    profiled = session(1, 3, a=3, b=3, n=3)
    assert judged(profiled, asked=3).unsettled == ()
    # As the export measures a winner: four times as long, then sixteen times, and still too short.
    exported = [*session(2, 12, w=12), *session(3, 48, w=5)]
    assert judged(profiled, exported, asked=3).unsettled == ()
    # As `validate` with more rounds.
    assert judged(profiled, session(2, 9, v=9), asked=3).unsettled == ()


@pytest.mark.parametrize("again", [[], session(2, 12, b=8)])
def test_more_rounds_than_were_asked_for_in_the_end(again: list[Line], judged: Judged) -> None:
    stopped = session(1, 3000, a=20, n=20, b=4 if again else 20)
    assert judged(stopped).unsettled == ("a", "n", "b")
    found = judged(stopped, again, asked=12)
    assert (found.unsettled, found.settled) == ((), True)


def test_a_longer_profile_that_was_stopped_leaves_the_former_ones_word(judged: Judged) -> None:
    assert judged(session(1, 3, a=3), session(2, 3000, a=9), asked=3).unsettled == ()


def test_a_machine_that_did_not_settle_is_still_told_of(judged: Judged) -> None:
    busy = session(1, 12, calm=False, a=20, n=20)
    for sessions, asked in (([busy], 0), ([busy], 12), ([busy, session(2, 48, w=48)], 12)):
        found = judged(*sessions, asked=asked)
        assert {"a", "n"} <= set(found.unsettled)
        assert not found.settled
        assert "these latencies are unreliable" in str(found)


def test_nor_do_fewer_rounds_before_hide_it(judged: Judged) -> None:
    busy = session(2, 12, calm=False, a=12)
    assert judged(session(1, 3, a=3), busy, asked=12).unsettled == ("a",)


def test_other_kinds_are_judged_by_what_was_wanted_of_them(judged: Judged) -> None:
    busy = session(2, 12, calm=False, v=12)
    assert judged(session(1, 3, a=3), busy, asked=3).unsettled == ("v",)
