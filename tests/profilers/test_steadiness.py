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
        lines.append({"type": "reference", "key": "reference", **common, "samples_ms": [level]})
        for key, count in counts.items():
            if turn <= count:
                lines.append({**kind_of(key), "key": key, **common, "samples_ms": [2.0]})
    return lines


def kind_of(key: str) -> Line:
    kinds = {"n": "network", "w": "network", "v": "validation"}
    if key[0] not in kinds:
        return {}
    return {"type": kinds[key[0]], "architecture": {"n": key}, "space_hash": "cafe"}


@pytest.fixture
def judged(write: Write) -> Callable[..., Steadiness]:
    def judged(*lines: list[Line]) -> Steadiness:
        return LatencyTable.load(write(*(line for some in lines for line in some))).steadiness()

    return judged


@pytest.fixture
def fitted(correction: Callable[..., Line]) -> Callable[..., list[Line]]:
    """The line that `profile` ends with."""
    return lambda rounds, space_hash="cafe": [correction(space_hash, rounds=rounds)]


Judged = Callable[..., Steadiness]
Fitted = Callable[..., list[Line]]


def test_a_session_that_wants_more_of_its_own_takes_nothing_from_others(
    judged: Judged, fitted: Fitted
) -> None:
    profiled = [*session(1, 3, a=3, b=3, n=3), *fitted(3)]
    assert judged(profiled).unsettled == ()
    # As the export measures a winner: four times as long, then sixteen times, and still too short.
    exported = [*session(2, 12, w=12), *session(3, 48, w=5)]
    assert judged(profiled, exported).unsettled == ()
    assert judged(profiled, exported, fitted(3)).unsettled == ()
    # As `validate` with more rounds.
    assert judged(profiled, session(2, 9, v=9)).unsettled == ()


@pytest.mark.parametrize("again", [[], session(2, 12, b=8)])
def test_more_rounds_than_were_asked_for_in_the_end(
    again: list[Line], judged: Judged, fitted: Fitted
) -> None:
    stopped = session(1, 3000, a=20, n=20, b=4 if again else 20)
    assert judged(stopped).unsettled == ("a", "b", "n")
    found = judged(stopped, again, fitted(12))
    assert (found.unsettled, found.settled) == ((), True)


def test_a_longer_profile_that_was_stopped_leaves_the_former_ones_word(
    judged: Judged, fitted: Fitted
) -> None:
    found = judged(session(1, 3, a=3), fitted(3), session(2, 3000, a=9))
    assert found.unsettled == ()


def test_a_machine_that_did_not_settle_is_still_told_of(judged: Judged, fitted: Fitted) -> None:
    busy = session(1, 12, calm=False, a=20, n=20)
    for lines in ([busy], [busy, fitted(12)], [busy, fitted(12), session(2, 48, w=48), fitted(12)]):
        found = judged(*lines)
        assert {"a", "n"} <= set(found.unsettled)
        assert not found.settled
        assert "NEVER SETTLED" in str(found)


def test_nor_do_fewer_rounds_before_hide_it(judged: Judged, fitted: Fitted) -> None:
    busy = session(2, 12, calm=False, a=12)
    assert judged(session(1, 3, a=3), fitted(3), busy, fitted(12)).unsettled == ("a",)


def test_networks_held_out_are_judged_by_what_was_wanted_of_them(
    judged: Judged, fitted: Fitted
) -> None:
    profiled = [*session(1, 3, a=3), *fitted(3)]
    busy = session(2, 12, calm=False, v=12)
    assert judged(profiled, busy, fitted(3)).unsettled == ("v",)


def test_another_space_that_asks_for_more_is_another_matter(judged: Judged, fitted: Fitted) -> None:
    mine, busy = session(1, 3, a=3), session(2, 12, calm=False, b=12)
    assert judged(mine, fitted(3), busy, fitted(12, "beef")).unsettled == ("b",)
