"""Measuring sessions in turn, round by round."""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from devices.errors import EngineError
from devices.runtimes import Session
from profilers.errors import ProfilerError


@dataclass(frozen=True)
class RoundSamples:
    """What one round gave for one key.

    Attributes:
        cold_ms: Of the first run. Other models have had the caches since the round before, so
            weights come from memory, as those of a block do inside of a network.
        warm_ms: Of the runs right after it.
    """

    cold_ms: float
    warm_ms: tuple[float, ...]


Outcome = RoundSamples | EngineError


@dataclass(frozen=True)
class MeasureConfig:
    """How often and how long to measure.

    Args:
        rounds: Rounds of each key.
        runs: Runs of a key in each round, after a first one that counts apart.
        max_seconds: No round begins later than this, except for the first `minimum_rounds`.
        minimum_rounds: Rounds of each key that are made in any case.
        seed: Of the order in a round.

    Raises:
        ProfilerError: If a number is too small.
    """

    rounds: int = 12
    runs: int = 3
    max_seconds: float = 300.0
    minimum_rounds: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for field, least in (("rounds", 1), ("runs", 1), ("minimum_rounds", 1)):
            if getattr(self, field) < least:
                raise ProfilerError(
                    f"{field!r} of measuring must be at least {least}",
                    str(getattr(self, field)),
                    f"Raise {field!r}.",
                )
        if not self.max_seconds > 0:
            raise ProfilerError(
                "'max_seconds' of measuring must be above 0",
                str(self.max_seconds),
                "Raise 'max_seconds'.",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def measure_rounds(
    sessions: Mapping[str, Session],
    config: MeasureConfig,
    rounds_done: Mapping[str, int] | None = None,
    always: Collection[str] = (),
) -> Iterator[tuple[int, str, Outcome]]:
    """Measure all keys in turn, round after round.

    A slow minute of the machine falls on all keys alike in this way, instead of on one of them.
    The order differs from round to round, so that no key always follows the same other one.

    Args:
        sessions: What to measure, by key.
        config: Rounds, runs and bounds.
        rounds_done: Rounds that keys already have; others have none. All keys end up with
            `config.rounds`, unless `config.max_seconds` is over before.
        always: Keys that open each round that is made at all, whatever rounds they have.

    Yields:
        Number of the round, key, and the samples, or the error that ended the key's measuring.
    """
    done = rounds_done or {}
    failed = set()
    due_ever = {key for key in sessions if key not in always and done.get(key, 0) < config.rounds}
    if not due_ever:
        return
    first_round = 1 + min(done.get(key, 0) for key in due_ever)
    # Once over all: the first run of a session allocates, and a cold machine is a slow one.
    for key in [*always, *sorted(due_ever)]:
        outcome = _time(sessions[key], 1)
        if isinstance(outcome, EngineError):
            failed.add(key)
            yield first_round, key, outcome
    begin = time.monotonic()
    for number in range(first_round, config.rounds + 1):
        due = sorted(key for key in due_ever - failed if done.get(key, 0) < number)
        is_optional = number > max(config.minimum_rounds, first_round)
        if not due or (is_optional and time.monotonic() - begin >= config.max_seconds):
            return
        random.Random(f"{config.seed}/{number}").shuffle(due)
        for key in [*(key for key in always if key not in failed), *due]:
            outcome = _time(sessions[key], config.runs)
            if isinstance(outcome, EngineError):
                failed.add(key)
            yield number, key, outcome


def _time(session: Session, runs: int) -> Outcome:
    try:
        with _without_garbage_collection():
            cold_ms, *warm_ms = session.time_ms(1 + runs)
            return RoundSamples(cold_ms, tuple(warm_ms))
    except EngineError as error:
        return error


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
