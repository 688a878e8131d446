"""Measures sessions in turn, round by round."""

from __future__ import annotations

import gc
import itertools
import math
import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from devices.errors import EngineError
from devices.interruptions import RunWatch, yield_processor
from devices.processors import OtherPrograms, read_processors
from devices.runtimes.protocol import TimedSession
from profilers import statistics
from profilers.errors import ProfilerError
from profilers.steadiness import Look, disturbed_stretches


@dataclass(frozen=True)
class RoundSamples:
    """Samples of one round of one key.

    Runs that other programs interrupted are left out and made again; if all were interrupted, the
    round does not count.

    Attributes:
        cold_ms: First run. Other models have used the caches since the previous round, so weights
            come from memory, as those of a block inside a network do. None if it was interrupted.
        warm_ms: The runs right after it.
        waited_ms: By how much each of them was interrupted, if all were; otherwise empty.
    """

    cold_ms: float | None
    warm_ms: tuple[float, ...]
    waited_ms: tuple[float, ...] = ()

    @property
    def fastest_ms(self) -> float:
        """The fastest run, without the time for which it was interrupted."""
        return min(without_waiting(self.warm_ms, self.waited_ms))


def without_waiting(samples_ms: Sequence[float], waited_ms: Sequence[float]) -> list[float]:
    """Durations of runs less the time for which they were interrupted, if they were."""
    if not waited_ms:
        return list(samples_ms)
    # Threads of one run may wait at the same time: a part of the run is left in any case.
    pairs = zip(samples_ms, waited_ms, strict=True)
    return [ms - min(waited, _MOST_WAITING * ms) for ms, waited in pairs]


Outcome = RoundSamples | EngineError

REFERENCE_RUNS = 10
"""Runs of the reference in each of its measurements: enough to hit a moment without other load."""
_NEVER = -1
"""In place of the number of a stretch: the round does not count."""
_CLOCK_MS = 1e-3
"""Narrowest interval to aim for: shorter latencies are not resolved better."""
SECONDS_BETWEEN_REFERENCES = 0.25
"""Time between two reference measurements within a round."""
ATTEMPTS = 3
"""Runs made, relative to those wanted, if other programs keep interrupting them."""
_WAITING = 0.2
"""Share of a run that it may wait for a processor, relative to the tolerance."""
_CROWD = 5.0
"""Processors that others may use beyond those that are to spare, relative to the tolerance."""
_MOST_WAITING = 0.9
"""Largest share of a run that is taken for waiting."""
_MOST_TIMES = 10
"""Rounds of a short key, relative to `rounds`, up to which its runs are added up to `least_ms`."""


@dataclass(frozen=True)
class Measurement:
    """The result of one round of one key.

    Attributes:
        round: Number of the round, from 1.
        key: The key.
        outcome: The samples, or the error that ended measuring the key.
        session: Index, from 0, among the sessions measured together: each board, and each
            connection to it, is a session of its own.
        anchor: Whether it was measured only to compare sessions.
        look: What the reference tells of the machine; None for other keys.
    """

    round: int
    key: str
    outcome: Outcome
    session: int = 0
    anchor: bool = False
    look: Look | None = None


@dataclass(frozen=True)
class KeyHistory:
    """The previous rounds of a key.

    Attributes:
        minima_ms: Fastest run of each round that counts.
        attempts: Number of rounds made, disturbed and interrupted ones included.
    """

    minima_ms: tuple[float, ...] = ()
    attempts: int = 0

    @property
    def fastest_ms(self) -> float | None:
        """The fastest run; None before the first round that counts."""
        return min(self.minima_ms, default=None)

    def with_round(self, samples: RoundSamples, *, counts: bool = True) -> KeyHistory:
        """The history after one more round."""
        minima_ms = (*self.minima_ms, samples.fastest_ms) if counts else self.minima_ms
        return KeyHistory(minima_ms, self.attempts + 1)


@dataclass(frozen=True)
class MeasureConfig:
    """How often and how long to measure.

    Attributes:
        rounds: Rounds of each key that must count; short ones need more, see `least_ms`.
        runs: Runs of a key in each round, after a first one with cold caches.
        max_seconds: No round starts later than this, except for the first `minimum_rounds`.
        minimum_rounds: Rounds of each key that are made in any case.
        seed: Seed of the order in a round.
        interval: A key gets more rounds until the confidence interval of its low quantile is at
            most this share of the quantile.
        tolerance: A round counts if the reference, just before and after it, is at most this share
            slower than usual; a run, if it waited for a processor for at most a fifth of this
            share.
        max_rounds: Most rounds of a key, disturbed ones included; three times those that it needs
            if None.
        least_ms: Runs of a key, those after the first of each round, take this long in all: a
            latency of a millisecond is not known well after 12 rounds, since slow moments of a
            machine last longer than those. At most ten times `rounds` are made for it.

    Raises:
        ProfilerError: If a number is too small.
    """

    rounds: int = 12
    runs: int = 3
    max_seconds: float = 300.0
    minimum_rounds: int = 2
    seed: int = 0
    interval: float = 0.03
    tolerance: float = 0.1
    max_rounds: int | None = None
    least_ms: float = 0.0

    def __post_init__(self) -> None:
        least = {
            "rounds": 1,
            "runs": 1,
            "minimum_rounds": 1,
            "max_rounds": self.rounds,
            "least_ms": 0,
        }
        for field, value in asdict(self).items():
            if field in ("max_seconds", "interval", "tolerance") and not value > 0:
                bound = "above 0"
            elif field in least and value is not None and value < least[field]:
                bound = f"at least {least[field]}"
            else:
                continue
            raise ProfilerError(f"{field!r} of measuring {bound}", str(value), f"Raise {field!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    def rounds_for(self, latency_ms: float | None) -> int:
        """Rounds that must count for a key whose fastest run takes `latency_ms`, if known."""
        if latency_ms is None:
            return self.rounds
        long_enough = math.ceil(self.least_ms / max(self.runs * latency_ms, _CLOCK_MS))
        needed = min(max(self.rounds, long_enough), _MOST_TIMES * self.rounds)
        return needed if self.max_rounds is None else min(needed, self.max_rounds)

    def most_rounds(self, latency_ms: float | None) -> int:
        """Most rounds of a key whose fastest run takes `latency_ms`, if known."""
        return 3 * self.rounds_for(latency_ms) if self.max_rounds is None else self.max_rounds

    def rounds_left(self, history: KeyHistory) -> int:
        """Rounds that a key with this history lacks, if none is disturbed; 0 if it may have none.

        A key that has its rounds and is not known precisely lacks one.
        """
        if history.attempts >= self.most_rounds(history.fastest_ms):
            return 0
        short_of = self.rounds_for(history.fastest_ms) - len(history.minima_ms)
        if short_of > 0:
            return short_of
        return 0 if self.is_precise(history) else 1

    def lacks_rounds(self, history: KeyHistory) -> bool:
        """Whether a key with this history needs, and may have, another round."""
        return self.rounds_left(history) > 0

    def is_precise(self, history: KeyHistory) -> bool:
        """Whether the confidence interval of a key's low quantile is narrow enough."""
        if not history.minima_ms:
            return False
        least_ms = max(self.interval * min(history.minima_ms), _CLOCK_MS)
        return statistics.low_quantile_width_ms(history.minima_ms) <= least_ms


def measure_rounds(
    sessions: Mapping[str, TimedSession],
    config: MeasureConfig,
    history: Mapping[str, KeyHistory] | None = None,
    always: Collection[str] = (),
    reference: str | None = None,
    spare: float = math.inf,
) -> Iterator[Measurement]:
    """Measure all keys in turn, round after round.

    Interleaving spreads a slow minute of the machine over all keys. The order differs between
    rounds, so that no key always follows the same other one.

    The reference is measured at the start and end of each round, and every quarter of a second in
    between. Rounds during which it was slow, or other programs used more processors than are to
    spare, do not count, and are repeated. So are runs that other programs interrupted. A key is
    measured until enough rounds count and its low quantile is precise enough, or until rounds or
    time run out.

    Args:
        sessions: Sessions to measure, by key.
        config: Rounds, runs and bounds.
        history: Previous rounds of keys.
        always: Keys measured in every round, whatever rounds they have.
        reference: Key of the reference workload, if any.
        spare: Processors that other programs may use without sharing a core with the runs.

    Yields:
        The result of each round of each key; a key that fails is not measured again.
    """
    rounds = _Rounds(sessions, config, history or {}, always, reference, spare)
    if rounds.due():
        yield from rounds.warm_up()
        yield from rounds.measure()


@dataclass
class _Rounds:
    """State of `measure_rounds`."""

    sessions: Mapping[str, TimedSession]
    config: MeasureConfig
    history: Mapping[str, KeyHistory]
    always: Collection[str]
    reference: str | None
    spare: float

    def __post_init__(self) -> None:
        own = (*self.always, self.reference)
        self.always = [key for key in self.always if key != self.reference]
        self._keys = [key for key in sorted(self.sessions) if key not in own]
        # By key, for each round: its stretch, or `_NEVER` if it was interrupted; its fastest run.
        self._minima_ms: dict[str, list[tuple[int, float]]] = {key: [] for key in self._keys}
        self._looks: list[Look] = []
        self._others = OtherPrograms(read_processors().affinity)
        self._failed: set[str] = set()

    def due(self) -> list[str]:
        """The keys that lack rounds."""
        disturbed = disturbed_stretches(self._looks, self.config.tolerance)
        return [
            key
            for key in self._keys
            if key not in self._failed
            and self.config.lacks_rounds(self._history_now(key, disturbed))
        ]

    def _history_now(self, key: str, disturbed: Collection[int] = ()) -> KeyHistory:
        before, now = self.history.get(key, KeyHistory()), self._minima_ms[key]
        counting = tuple(ms for stretch, ms in now if stretch not in (_NEVER, *disturbed))
        return KeyHistory(before.minima_ms + counting, before.attempts + len(now))

    def warm_up(self) -> Iterator[Measurement]:
        """Run all sessions once: first runs allocate, and a cold machine is slow."""
        first = [] if self.reference is None else [self.reference]
        for key in [*first, *self.always, *self.due()]:
            outcome = self._time(key, 1)
            if isinstance(outcome, EngineError):
                self._failed.add(key)
                yield Measurement(1, key, outcome)

    def measure(self) -> Iterator[Measurement]:
        begin = time.monotonic()
        for number in itertools.count(1):
            due = self.due()
            if number > 1 and time.monotonic() - begin >= self.config.max_seconds:
                least = self.config.minimum_rounds
                due = [key for key in due if self._history_now(key).attempts < least]
            if not due:
                return
            keys = [*self.always, *due]
            random.Random(f"{self.config.seed}/{number}").shuffle(keys)
            yield from self._round(number, [key for key in keys if key not in self._failed])

    def _round(self, number: int, keys: Sequence[str]) -> Iterator[Measurement]:
        looked = -math.inf
        for key in keys:
            if time.monotonic() - looked >= SECONDS_BETWEEN_REFERENCES:
                yield from self._look(number)
                looked = time.monotonic()
            outcome = self._time(key, self.config.runs)
            if isinstance(outcome, EngineError):
                self._failed.add(key)
            elif key in self._minima_ms:
                stretch = _NEVER if outcome.waited_ms else len(self._looks)
                self._minima_ms[key].append((stretch, outcome.fastest_ms))
            yield Measurement(number, key, outcome)
        yield from self._look(number)

    def _time(self, key: str, runs: int) -> Outcome:
        return _time(self.sessions[key], runs, _WAITING * self.config.tolerance)

    def _look(self, number: int) -> Iterator[Measurement]:
        """Measure the reference."""
        if self.reference is not None and self.reference not in self._failed:
            outcome, look = self._time(self.reference, REFERENCE_RUNS), None
            if isinstance(outcome, EngineError):
                self._failed.add(self.reference)
            else:
                others = self._others.used()
                crowded = (
                    others is not None and others > self.spare + _CROWD * self.config.tolerance
                )
                look = Look(outcome.fastest_ms, others, crowded)
                self._looks.append(look)
            yield Measurement(number, self.reference, outcome, look=look)


def _time(session: TimedSession, runs: int, waiting: float) -> Outcome:
    """Time a first run and some more; those that are interrupted are made again, within bounds."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        timings_ms = session.timings_ms()  # first: an engine that is loaded anew has other threads
        with RunWatch(session.workers, waiting) as watch:
            timed = _timed(timings_ms, watch)
            cold_ms, waited_ms = next(timed)
            cold = None if waited_ms else cold_ms
            warm: list[float] = []
            interrupted: list[tuple[float, float]] = []
            while len(warm) < runs and len(warm) + len(interrupted) < ATTEMPTS * runs:
                if waited_ms:
                    yield_processor()
                ms, waited_ms = next(timed)
                if waited_ms:
                    interrupted.append((ms, waited_ms))
                else:
                    warm.append(ms)
        if warm:
            return RoundSamples(cold, tuple(warm))
        samples_ms, waits_ms = zip(*interrupted[:runs], strict=True)
        return RoundSamples(cold, samples_ms, waits_ms)
    except EngineError as error:
        return error
    finally:
        if was_enabled:
            gc.enable()


def _timed(timings_ms: Iterator[float], watch: RunWatch) -> Iterator[tuple[float, float]]:
    """Duration of each run, and how long it was interrupted."""
    while True:
        watch.start()
        ms = next(timings_ms)
        yield ms, watch.waited_ms(ms)
