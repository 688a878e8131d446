"""What is still measured after a lost connection, with a fixed clock and no board."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devices.errors import ConnectionLostError
from profilers import MeasureConfig, Measurement, Workload, remote_meter
from profilers.measure import KeyHistory, RoundSamples
from profilers.steadiness import Look


class CutOff(remote_meter.RemoteMeter):
    """A meter whose connections give some rounds of the key `a` and are then lost.

    Args:
        connections: Of each, what the reference takes before each round of `a`, and whether it is
            lost in the end.
    """

    def __init__(self, *connections: tuple[list[float], bool]) -> None:
        self.host, self.fingerprints = "board", []
        self.seconds = 0.0
        self.asked: list[tuple[float, KeyHistory]] = []
        self._connections = iter(connections)
        self._agent = None

    def _connect(self) -> None:
        self._agent = object()  # type: ignore[assignment]

    def _hang_up(self) -> None:
        self._agent = None

    def _measure(
        self, workloads: Any, anchors: Any, config: MeasureConfig, history: Any
    ) -> Iterator[Measurement]:
        assert set(history) == {"a"}
        self.asked.append((config.max_seconds, history["a"]))
        levels_ms, is_lost = next(self._connections)
        self.seconds += 1000  # until the models are there and loaded, which is no measuring
        for level_ms in levels_ms:
            self.seconds += 10
            samples = RoundSamples(level_ms, (level_ms,))
            yield Measurement(1, "reference", samples, look=Look(level_ms))
            yield Measurement(1, "a", RoundSamples(2.0, (2.0,)))
        if is_lost:
            raise ConnectionLostError("a stable connection", "none", "Check it.")

    def rounds(self, monkeypatch: pytest.MonkeyPatch, config: MeasureConfig) -> int:
        """Measure; the rounds of `a` that were made. A pause takes a minute, which is none of the
        measuring's."""

        def sleep(seconds: float) -> None:
            self.seconds += 60

        clock = SimpleNamespace(monotonic=lambda: self.seconds, sleep=sleep)
        monkeypatch.setattr(remote_meter, "time", clock)
        found = list(self.measure([Workload("a", Path("a.onnx"))], (), config, {}))
        return sum(measurement.key == "a" for measurement in found)


def test_disturbed_rounds_before_a_cut_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = CutOff(([1.0, 1.0, 9.0, 9.0], True), ([1.0, 1.0], False))
    assert meter.rounds(monkeypatch, MeasureConfig(rounds=3)) == 6
    assert [history for _, history in meter.asked] == [KeyHistory(), KeyHistory((2.0,), 4)]


def test_the_time_is_that_of_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    config = MeasureConfig(rounds=9, max_seconds=100)
    meter = CutOff(([1.0] * 3, True), ([1.0] * 2, True), ([1.0], False))
    assert meter.rounds(monkeypatch, config) == 6
    # The time from the first look at the machine on.
    assert [seconds for seconds, _ in meter.asked] == [100, 80, 70]


def test_when_the_time_is_over_a_cut_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    config = MeasureConfig(rounds=9, max_seconds=20, minimum_rounds=3)
    assert CutOff(([1.0] * 3, True)).rounds(monkeypatch, config) == 3
    meter = CutOff(([1.0] * 3, True), ([1.0], False))
    config = MeasureConfig(rounds=9, max_seconds=20, minimum_rounds=4)
    assert meter.rounds(monkeypatch, config) == 4
    assert 0 < meter.asked[1][0] < 1


def test_connections_that_only_reach_the_reference_are_not_made_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Useless(CutOff):
        def _measure(self, *_: Any) -> Iterator[Measurement]:
            self.asked.append((0.0, KeyHistory()))
            yield Measurement(1, "reference", RoundSamples(1.0, (1.0,)))
            raise ConnectionLostError("a stable connection", "none", "Check it.")

    meter = Useless()
    with pytest.raises(ConnectionLostError):
        meter.rounds(monkeypatch, MeasureConfig())
    assert len(meter.asked) == 1 + len(remote_meter.PAUSES_SECONDS)
