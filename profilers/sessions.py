"""Makes the sessions of a table comparable, and finds their disturbed rounds."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from profilers.latency_record import LatencyRecord, is_count
from profilers.measure import MeasureConfig
from profilers.steadiness import Look, disturbed_stretches
from profilers.workload import OVERHEAD_KEY

Stretches = Collection[tuple[int, int]]
"""Stretches between two reference measurements, as (session, number)."""


@dataclass(frozen=True)
class SessionFacts:
    """Facts of a session of a table.

    Attributes:
        number: From 1.
        merged_from: Name of the file it was merged from; None if it was measured into this table.
        began: Start as `YYYY-MM-DDThh:mm:ssZ`; None if unknown.
        fingerprint: Fingerprint as plain JSON values; empty if unknown.
        config: How it was measured.
    """

    number: int
    merged_from: str | None = None
    began: str | None = None
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    config: MeasureConfig = field(default_factory=MeasureConfig)

    def __post_init__(self) -> None:
        is_right = {
            "number": is_count(self.number),
            "merged_from": self.merged_from is None or isinstance(self.merged_from, str),
            "began": self.began is None or isinstance(self.began, str),
            "fingerprint": isinstance(self.fingerprint, Mapping),
        }
        for name in (name for name, right in is_right.items() if not right):
            raise ValueError(f"{name} {getattr(self, name)!r} of a session")


def by_session(records: Iterable[LatencyRecord]) -> dict[int, dict[str, list[LatencyRecord]]]:
    """Records by session and key."""
    found: dict[int, dict[str, list[LatencyRecord]]] = {}
    for record in records:
        found.setdefault(record.session, {}).setdefault(record.key, []).append(record)
    return found


def session_scales(
    records: Iterable[LatencyRecord], disturbed: Stretches = (), *, of_medians: bool = False
) -> dict[int, float]:
    """The factors that make sessions comparable with the first one.

    A factor is the median ratio over all keys that a session shares with earlier ones, anchors
    included; a session that shares none has no factor. Ratios are of lower quartiles of the rounds'
    minima, which depend less on the number of rounds than lower quantiles do; `of_medians`, of the
    rounds' medians: a session on a busier machine has higher medians at the same minima. Disturbed
    rounds do not count, unless all of a key are: in a bad hour most are.
    """
    typical_ms = _middle_of_medians_ms if of_medians else _quartile_of_minima_ms
    known_ms: dict[str, float] = {}
    scales: dict[int, float] = {}
    for session, of_session in sorted(by_session(records).items()):
        found_ms = {
            key: typical_ms(undisturbed(of_key, disturbed))
            for key, of_key in of_session.items()
            if key != OVERHEAD_KEY  # too short to be informative
        }
        shared = [known_ms[key] / ms for key, ms in found_ms.items() if key in known_ms]
        if not shared and known_ms:
            continue
        scales[session] = float(np.median(shared)) if shared else 1.0
        for key, ms in found_ms.items():
            known_ms.setdefault(key, scales[session] * ms)
    return scales


def _quartile_of_minima_ms(records: Sequence[LatencyRecord]) -> float:
    return float(np.quantile([record.fastest_ms for record in records], 0.25))


def _middle_of_medians_ms(records: Sequence[LatencyRecord]) -> float:
    return statistics.median([statistics.median(record.net_ms) for record in records])


def undisturbed(records: Sequence[LatencyRecord], disturbed: Stretches) -> Sequence[LatencyRecord]:
    """The records of a key that count; all records if none does."""
    return [each for each in records if counts(each, disturbed)] or records


def counts(record: LatencyRecord, disturbed: Stretches) -> bool:
    """Whether a round was neither interrupted nor in a disturbed stretch."""
    return record.waited_ms is None and (record.session, record.stretch) not in disturbed


def looks_by_session(records: Iterable[LatencyRecord]) -> dict[int, list[Look]]:
    """The measurements of the reference, by session."""
    found: dict[int, list[Look]] = {}
    for record in records:
        look = Look(record.fastest_ms, record.others, record.crowded)
        found.setdefault(record.session, []).append(look)
    return found


def all_disturbed_stretches(
    looks: Mapping[int, Sequence[Look]], facts: Mapping[int, SessionFacts]
) -> frozenset[tuple[int, int]]:
    """The disturbed stretches of all sessions, from `looks_by_session`."""
    return frozenset(
        (session, number)
        for session, of_session in looks.items()
        for number in disturbed_stretches(
            of_session, facts.get(session, SessionFacts(session)).config.tolerance
        )
    )


def what_was_wanted(configs: Sequence[MeasureConfig], asked_rounds: int = 0) -> MeasureConfig:
    """The configuration that decides whether a key, measured with some others, has enough rounds.

    A session may have asked for more rounds than are needed in the end (it was killed, or measured
    winners): so `asked_rounds`, the last number asked for, counts, not the largest; if it is 0
    (unknown), the smallest.
    """
    most = max(configs, key=lambda config: config.rounds)
    last_word = asked_rounds or min(config.rounds for config in configs)
    return replace(most, rounds=min(most.rounds, last_word))
