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
from devices.runtimes.protocol import Session
from profilers import statistics, steadiness
from profilers.errors import ProfilerError


@dataclass(frozen=True)
class RoundSamples:
    """Samples of one round of one key.

    Attributes:
        cold_ms: First run. Other models have used the caches since the previous round, so weights
            come from memory, as those of a block inside a network do.
        warm_ms: The runs right after it.
    """

    cold_ms: float
    warm_ms: tuple[float, ...]


Outcome = RoundSamples | EngineError

REFERENCE_RUNS = 10
"""Runs of the reference in each of its measurements: enough to hit a moment without other load."""
_CLOCK_MS = 1e-3
"""Narrowest interval to aim for: shorter latencies are not resolved better."""
SECONDS_BETWEEN_REFERENCES = 0.25
"""Time between two reference measurements within a round."""


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
    """

    round: int
    key: str
    outcome: Outcome
    session: int = 0
    anchor: bool = False


@dataclass(frozen=True)
class KeyHistory:
    """The previous rounds of a key.

    Attributes:
        minima_ms: Fastest run of each round that counts.
        attempts: Number of rounds made, disturbed ones included.
    """

    minima_ms: tuple[float, ...] = ()
    attempts: int = 0


@dataclass(frozen=True)
class MeasureConfig:
    """How often and how long to measure.

    Attributes:
        rounds: Rounds of each key that must count.
        runs: Runs of a key in each round, after a first one with cold caches.
        max_seconds: No round starts later than this, except for the first `minimum_rounds`.
        minimum_rounds: Rounds of each key that are made in any case.
        seed: Seed of the order in a round.
        interval: A key gets more rounds until the confidence interval of its low quantile is at
            most this share of the quantile.
        tolerance: A round counts if the reference, just before and after it, is at most this share
            slower than usual.
        max_rounds: Most rounds of a key, disturbed ones included; three times `rounds` if None.

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

    def __post_init__(self) -> None:
        least = {"rounds": 1, "runs": 1, "minimum_rounds": 1, "max_rounds": self.rounds}
        for field, value in asdict(self).items():
            if field in ("max_seconds", "interval", "tolerance") and not value > 0:
                bound = "above 0"
            elif field in least and value is not None and value < least[field]:
                bound = f"at least {least[field]}"
            else:
                continue
            raise ProfilerError(
                f"{field!r} of measuring must be {bound}", str(value), f"Raise {field!r}."
            )

    @property
    def most_rounds(self) -> int:
        """Most rounds of a key."""
        return 3 * self.rounds if self.max_rounds is None else self.max_rounds

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    def lacks_rounds(self, history: KeyHistory) -> bool:
        """Whether a key with this history needs, and may have, another round."""
        if history.attempts >= self.most_rounds:
            return False
        if len(history.minima_ms) < self.rounds:
            return True
        least_ms = max(self.interval * min(history.minima_ms), _CLOCK_MS)
        return statistics.low_quantile_width_ms(history.minima_ms) > least_ms


def measure_rounds(
    sessions: Mapping[str, Session],
    config: MeasureConfig,
    history: Mapping[str, KeyHistory] | None = None,
    always: Collection[str] = (),
    reference: str | None = None,
) -> Iterator[Measurement]:
    """Measure all keys in turn, round after round.

    Interleaving spreads a slow minute of the machine over all keys. The order differs between
    rounds, so that no key always follows the same other one.

    The reference is measured at the start and end of each round, and every quarter of a second in
    between. Rounds during which it was slow do not count, and are repeated. A key is measured
    until enough rounds count and its low quantile is precise enough, or until rounds or time run
    out.

    Args:
        sessions: Sessions to measure, by key.
        config: Rounds, runs and bounds.
        history: Previous rounds of keys.
        always: Keys measured in every round, whatever rounds they have.
        reference: Key of the reference workload, if any.

    Yields:
        The result of each round of each key; a key that fails is not measured again.
    """
    rounds = _Rounds(sessions, config, history or {}, always, reference)
    if rounds.due():
        yield from rounds.warm_up()
        yield from rounds.measure()


@dataclass
class _Rounds:
    """State of `measure_rounds`."""

    sessions: Mapping[str, Session]
    config: MeasureConfig
    history: Mapping[str, KeyHistory]
    always: Collection[str]
    reference: str | None

    def __post_init__(self) -> None:
        own = (*self.always, self.reference)
        self.always = [key for key in self.always if key != self.reference]
        self._keys = [key for key in sorted(self.sessions) if key not in own]
        # By key, for each round: the stretch between two references it was in, its fastest run.
        self._minima_ms: dict[str, list[tuple[int, float]]] = {key: [] for key in self._keys}
        self._levels_ms: list[float] = []
        self._failed: set[str] = set()

    def due(self) -> list[str]:
        """The keys that lack rounds."""
        disturbed = steadiness.disturbed_stretches(self._levels_ms, self.config.tolerance)
        return [
            key
            for key in self._keys
            if key not in self._failed
            and self.config.lacks_rounds(self._history_now(key, disturbed))
        ]

    def _history_now(self, key: str, disturbed: Collection[int] = ()) -> KeyHistory:
        before, now = self.history.get(key, KeyHistory()), self._minima_ms[key]
        counting = tuple(ms for stretch, ms in now if stretch not in disturbed)
        return KeyHistory(before.minima_ms + counting, before.attempts + len(now))

    def warm_up(self) -> Iterator[Measurement]:
        """Run all sessions once: first runs allocate, and a cold machine is slow."""
        first = [] if self.reference is None else [self.reference]
        for key in [*first, *self.always, *self.due()]:
            outcome = _time(self.sessions[key], 1)
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
            outcome = _time(self.sessions[key], self.config.runs)
            if isinstance(outcome, EngineError):
                self._failed.add(key)
            elif key in self._minima_ms:
                self._minima_ms[key].append((len(self._levels_ms), min(outcome.warm_ms)))
            yield Measurement(number, key, outcome)
        yield from self._look(number)

    def _look(self, number: int) -> Iterator[Measurement]:
        """Measure the reference."""
        if self.reference is not None and self.reference not in self._failed:
            outcome = _time(self.sessions[self.reference], REFERENCE_RUNS)
            if isinstance(outcome, EngineError):
                self._failed.add(self.reference)
            else:
                self._levels_ms.append(min(outcome.warm_ms))
            yield Measurement(number, self.reference, outcome)


def _time(session: Session, runs: int) -> Outcome:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        cold_ms, *warm_ms = session.time_ms(1 + runs)
        return RoundSamples(cold_ms, tuple(warm_ms))
    except EngineError as error:
        return error
    finally:
        if was_enabled:
            gc.enable()
