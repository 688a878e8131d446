"""Rounds over sessions."""

import gc
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices import ReplayRuntime, Session
from devices.errors import EngineError
from devices.interruptions import RunWatch
from devices.processors import OtherPrograms
from profilers import (
    KeyHistory,
    MeasureConfig,
    Measurement,
    ProfilerError,
    RoundSamples,
    measure_rounds,
)


def replay_sessions(samples_ms: Mapping[str, list[float]]) -> dict[str, Session]:
    runtime = ReplayRuntime(samples_ms)
    return {key: runtime.load(Path(key)) for key in samples_ms}


class RecordingSession(Session):
    """Notes what is asked of it."""

    def __init__(self, key: str, log: list[list[Any]], fails_at: float) -> None:
        self.inputs: dict[str, tuple[int, ...]] = {}
        self._key = key
        self._log = log
        self._fails_at = fails_at

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {}

    def timings_ms(self) -> Iterator[float]:
        self._log.append([self._key, 0, gc.isenabled()])
        if len(self._log) >= self._fails_at:
            raise EngineError("to run", self._key, "Try again.")
        entry = self._log[-1]
        while True:
            entry[1] += 1
            yield 1.0

    def close(self) -> None:
        pass


def recording(
    keys: str, fails: Mapping[str, int] | None = None
) -> tuple[dict[str, Session], list[list[Any]]]:
    log: list[list[Any]] = []
    fails_at = fails or {}
    return {key: RecordingSession(key, log, fails_at.get(key, math.inf)) for key in keys}, log


def before(**rounds: int) -> dict[str, KeyHistory]:
    return {key: KeyHistory((1.0,) * count, count) for key, count in rounds.items()}


def test_each_round_has_each_key_once_with_its_samples() -> None:
    sessions = replay_sessions({"a": [1.0, 2.0, 3.0], "b": [4.0]})
    config = MeasureConfig(rounds=4, runs=2)
    found = list(measure_rounds(sessions, config))
    assert [m.round for m in found] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert Counter((m.round, m.key) for m in found).most_common(1)[0][1] == 1
    # The two runs before all rounds are not counted.
    assert [m.outcome for m in found if m.key == "a"] == [RoundSamples(3.0, (1.0, 2.0))] * 4


def test_the_order_changes_from_round_to_round_and_is_repeatable() -> None:
    config = MeasureConfig(rounds=8, runs=1)

    def orders(seed_config: MeasureConfig) -> list[str]:
        sessions, _ = recording("abcdef")
        found = list(measure_rounds(sessions, seed_config))
        return ["".join(m.key for m in found if m.round == wanted) for wanted in range(1, 9)]

    assert len(set(orders(config))) > 1
    assert orders(config) == orders(config)
    assert orders(config) != orders(MeasureConfig(rounds=8, runs=1, seed=1))


def test_all_are_warmed_before_the_first_round_without_garbage_collection() -> None:
    sessions, log = recording("ab")
    assert gc.isenabled()
    list(measure_rounds(sessions, MeasureConfig(rounds=1, runs=3)))
    runs = [(key, runs) for key, runs, _ in log]
    assert runs[:2] == [("a", 2), ("b", 2)]
    assert sorted(runs[2:]) == [("a", 4), ("b", 4)]
    assert not any(enabled for _, _, enabled in log)
    assert gc.isenabled()


def test_keys_catch_up_with_those_that_have_more_rounds() -> None:
    sessions, _ = recording("abc")
    found = list(measure_rounds(sessions, MeasureConfig(rounds=4, runs=1), before(a=4, b=3, c=1)))
    assert sorted((m.round, m.key) for m in found) == [(1, "b"), (1, "c"), (2, "c"), (3, "c")]


def test_some_keys_open_each_round_that_is_made() -> None:
    sessions, _ = recording("abx")
    config = MeasureConfig(rounds=3, runs=1)
    found = [
        (m.round, m.key) for m in measure_rounds(sessions, config, before(a=2, b=3), always="x")
    ]
    assert found == [(1, "x"), (1, "a")]


def test_nothing_due_means_no_run_at_all() -> None:
    sessions, log = recording("abx")
    config = MeasureConfig(rounds=3)
    assert list(measure_rounds(sessions, config, before(a=3, b=5), always="x")) == []
    assert log == []


def test_a_key_that_fails_is_reported_once_and_the_others_go_on() -> None:
    sessions, _ = recording("ab", {"b": 6})
    config = MeasureConfig(rounds=4, runs=1)
    found = list(measure_rounds(sessions, config))
    failures = [m for m in found if isinstance(m.outcome, EngineError)]
    assert len(failures) == 1
    assert [m.round for m in found if m.key == "a"] == [1, 2, 3, 4]
    assert gc.isenabled()


def test_a_key_that_fails_at_once_has_no_round() -> None:
    sessions, _ = recording("ab", {"a": 1})
    found = list(measure_rounds(sessions, MeasureConfig(rounds=2, runs=1)))
    assert [(m.round, m.key) for m in found] == [(1, "a"), (1, "b"), (2, "b")]
    assert isinstance(found[0].outcome, EngineError)


def test_time_bounds_the_rounds_but_not_the_first_ones() -> None:
    config = MeasureConfig(rounds=50, runs=1, max_seconds=1e-9, minimum_rounds=3)
    sessions, _ = recording("ab")
    assert max(m.round for m in measure_rounds(sessions, config)) == 3


def test_out_of_time_a_resumed_measuring_still_makes_a_round() -> None:
    config = MeasureConfig(rounds=50, runs=1, max_seconds=1e-9, minimum_rounds=3)
    sessions, _ = recording("ab")
    found = list(measure_rounds(sessions, config, before(a=10, b=10)))
    assert {m.round for m in found} == {1}


@pytest.mark.parametrize(
    ("field", "value", "least"),
    [
        ("rounds", 0, 1),
        ("runs", 0, 1),
        ("minimum_rounds", 0, 1),
        ("max_rounds", 11, 12),
    ],
)
def test_numbers_that_are_too_small_are_refused(field: str, value: int, least: int) -> None:
    with pytest.raises(ProfilerError, match=f"'{field}' .* at least {least}; found: {value}"):
        MeasureConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["max_seconds", "interval", "tolerance"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_bounds_of_nothing_are_refused(field: str, value: float) -> None:
    with pytest.raises(ProfilerError, match=f"'{field}' of measuring above 0"):
        MeasureConfig(**{field: value})  # type: ignore[arg-type]


def rounds_of(found: Iterable[Measurement], key: str) -> list[int]:
    return [m.round for m in found if m.key == key]


def test_a_key_that_varies_gets_more_rounds_until_they_are_used_up() -> None:
    # One sample each: a cold one and a warm one a round, and two in the beginning.
    varying = [1.0 + 0.1 * (n % 7) for n in range(200)]
    sessions = replay_sessions({"steady": [1.0], "varying": varying})
    config = MeasureConfig(rounds=4, runs=1, max_rounds=9)
    found = list(measure_rounds(sessions, config))
    assert rounds_of(found, "steady") == [1, 2, 3, 4]
    assert rounds_of(found, "varying") == list(range(1, 10))
    calm = MeasureConfig(rounds=4, runs=1, max_rounds=9, interval=1.0)
    again = replay_sessions({"varying": varying})
    assert rounds_of(measure_rounds(again, calm), "varying") == [1, 2, 3, 4]


def test_rounds_made_before_count_for_the_interval() -> None:
    sessions = replay_sessions({"a": [1.0]})
    config = MeasureConfig(rounds=4, runs=1, max_rounds=12)
    history = {"a": KeyHistory((1.0, 1.2, 1.3, 1.4), 5)}
    # Three values of twelve lie in the interval: two more at the low end make it narrow.
    assert rounds_of(measure_rounds(sessions, config, history), "a") == [1, 2]


def test_less_than_a_microsecond_is_no_difference() -> None:
    config = MeasureConfig(rounds=3, max_rounds=9)
    assert not config.lacks_rounds(KeyHistory((0.0010, 0.0019, 0.0030), 3))
    assert config.lacks_rounds(KeyHistory((0.0010, 0.0021, 0.0030), 3))
    assert not config.lacks_rounds(KeyHistory((0.0010, 0.0021, 0.0030), 9))


def test_a_disturbed_round_is_made_again() -> None:
    # Two samples before all rounds; then begin and end of each round take eleven samples each.
    slow_second = [*[1.0] * (2 + 2 * 11), *[1.0] * 11, *[2.0] * 11, *[1.0] * 200]
    sessions = replay_sessions({"reference": slow_second, "a": [1.0]})
    found = list(
        measure_rounds(sessions, MeasureConfig(rounds=4, runs=1), None, ["reference"], "reference")
    )
    assert rounds_of(found, "a") == [1, 2, 3, 4, 5]
    assert rounds_of(found, "reference") == sorted([1, 2, 3, 4, 5] * 2)


def test_a_machine_that_never_settles_uses_all_rounds() -> None:
    # The reference falls ever further behind: all but the first rounds are disturbed.
    samples = [1.05**n for n in range(200)]
    sessions = replay_sessions({"reference": samples, "a": [1.0]})
    config = MeasureConfig(rounds=4, runs=1, max_rounds=6)
    found = list(measure_rounds(sessions, config, None, ["reference"], "reference"))
    assert rounds_of(found, "a") == [1, 2, 3, 4, 5, 6]


def test_a_long_round_looks_at_the_reference_on_the_way() -> None:
    class Slow(RecordingSession):
        def timings_ms(self) -> Iterator[float]:
            time.sleep(0.1)
            return super().timings_ms()

    sessions, _ = recording("r")
    sessions |= {key: Slow(key, [], math.inf) for key in "abcdef"}
    config = MeasureConfig(rounds=1, runs=1)
    found = [m.key for m in measure_rounds(sessions, config, None, (), "r")]
    assert found[0] == found[-1] == "r"
    assert 3 <= found.count("r") <= 7
    assert "".join(sorted(found)).strip("r") == "abcdef"


class Interrupted(RecordingSession):
    """Runs that other programs interrupt, as often as given; the watch of the test tells so."""

    workers = ()

    def __init__(self, *waits_ms: float) -> None:
        super().__init__("a", [], math.inf)
        self.waits_ms = iter([*waits_ms, *[0.0] * 1000])

    def timings_ms(self) -> Iterator[float]:
        while True:
            self.last_ms = next(self.waits_ms)
            yield 1.0 + self.last_ms


@pytest.mark.parametrize(
    ("waits_ms", "expected"),
    [
        ((0, 0, 0, 0, 0, 0), RoundSamples(1.0, (1.0, 1.0))),
        ((0, 0, 0, 5, 0, 3, 0, 0), RoundSamples(1.0, (1.0, 1.0))),
        ((0, 0, 0, 5, 0, 3, 2, 2, 2), RoundSamples(1.0, (1.0,))),
        ((0, 0, 4, 0, 0, 0), RoundSamples(None, (1.0, 1.0))),
        ((0, 0, 4, 5, 6, 7, 8, 9, 9), RoundSamples(None, (6.0, 7.0), (5.0, 6.0))),
    ],
)
def test_interrupted_runs_are_made_again_within_bounds(
    monkeypatch: pytest.MonkeyPatch, waits_ms: tuple[float, ...], expected: RoundSamples
) -> None:
    session = Interrupted(*waits_ms)
    monkeypatch.setattr(RunWatch, "waited_ms", lambda self, ms: session.last_ms)
    found = next(m for m in measure_rounds({"a": session}, MeasureConfig(rounds=1, runs=2)))
    # The first two runs are those before all rounds.
    assert found.outcome == expected


def test_a_round_that_was_interrupted_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Interrupted(0, 0, *[5] * 4)
    monkeypatch.setattr(RunWatch, "waited_ms", lambda self, ms: session.last_ms)
    found = list(measure_rounds({"a": session}, MeasureConfig(rounds=2, runs=1)))
    assert [bool(m.outcome.waited_ms) for m in found] == [True, False, False]
    assert found[0].outcome.fastest_ms == pytest.approx(1.0)


def test_rounds_beside_too_many_other_programs_are_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = iter([0.4, 0.4, 0.4, 1.7, *[0.4] * 99])
    monkeypatch.setattr(OtherPrograms, "used", lambda self: next(used))
    sessions = replay_sessions({"reference": [1.0], "a": [1.0]})
    config = MeasureConfig(rounds=3, runs=1)
    found = list(measure_rounds(sessions, config, None, (), "reference", spare=1))
    assert rounds_of(found, "a") == [1, 2, 3, 4]
    assert [m.look.crowded for m in found if m.look].count(True) == 1


class TestShortKeys:
    """`least_ms`: keys that take less than a few milliseconds get more rounds."""

    def test_a_short_key_gets_rounds_until_its_runs_took_long_enough(self):
        config = MeasureConfig(rounds=2, runs=2, least_ms=40.0)
        sessions = replay_sessions({"short": [2.0], "long": [30.0]})
        counted = Counter(found.key for found in measure_rounds(sessions, config))
        assert counted == {"short": 10, "long": 2}

    def test_no_more_than_ten_times_the_rounds(self):
        config = MeasureConfig(rounds=2, runs=2, least_ms=40.0)
        assert config.rounds_for(0.001) == config.rounds_for(0.0) == 20
        assert replace(config, max_rounds=3).rounds_for(0.001) == 3

    def test_an_unknown_latency_asks_for_the_least(self):
        config = MeasureConfig(rounds=5, least_ms=40.0)
        assert config.rounds_left(KeyHistory()) == 5
