"""What joins the sessions of a table, and which of their rounds count."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from profilers.latency_record import LatencyRecord, is_count
from profilers.measure import MeasureConfig
from profilers.steadiness import disturbed_stretches
from profilers.workload import OVERHEAD_KEY

Stretches = Collection[tuple[int, int]]
"""Stretches between two measurements of the reference, by session and number."""


@dataclass(frozen=True)
class SessionFacts:
    """What a table says of one of its sessions.

    Attributes:
        number: Its number.
        merged_from: Name of the file that it was merged from; None if it was measured into this
            table.
        began: When it began, as `YYYY-MM-DDThh:mm:ssZ`; None where it was not kept.
        fingerprint: What was there, as plain JSON values; empty where it was not kept.
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
    """Records with samples by session and key."""
    found: dict[int, dict[str, list[LatencyRecord]]] = {}
    for record in records:
        found.setdefault(record.session, {}).setdefault(record.key, []).append(record)
    return found


def session_scales(records: Iterable[LatencyRecord], disturbed: Stretches = ()) -> dict[int, float]:
    """The factors that make sessions comparable with the first one.

    They come from all that a session shares with earlier ones. Compared are lower quartiles of the
    rounds' minima, which depend less on the number of rounds than lower quantiles do. Rounds in
    which the machine was disturbed do not count where there are others: in a bad hour they are most
    of them.

    Args:
        records: All that was measured, anchors included.
        disturbed: What does not count.

    Returns:
        Factors by session; a session that shares nothing with earlier ones is not among them.
    """
    known_ms: dict[str, float] = {}
    scales: dict[int, float] = {}
    for session, of_session in sorted(by_session(records).items()):
        found_ms = {
            key: float(np.quantile([r.fastest_ms for r in undisturbed(of_key, disturbed)], 0.25))
            for key, of_key in of_session.items()
            if key != OVERHEAD_KEY  # too short to tell anything
        }
        shared = [known_ms[key] / low_ms for key, low_ms in found_ms.items() if key in known_ms]
        if not shared and known_ms:
            continue
        scales[session] = float(np.median(shared)) if shared else 1.0
        for key, low_ms in found_ms.items():
            known_ms.setdefault(key, scales[session] * low_ms)
    return scales


def undisturbed(records: Sequence[LatencyRecord], disturbed: Stretches) -> Sequence[LatencyRecord]:
    """The records of when the machine was not disturbed; all if it always was.

    Args:
        records: Of one key.
        disturbed: What does not count.
    """
    calm = [record for record in records if (record.session, record.stretch) not in disturbed]
    return calm or records


def reference_levels_ms(records: Iterable[LatencyRecord]) -> dict[int, list[float]]:
    """The reference's fastest run each time that it was measured, by session.

    Args:
        records: Of the reference.
    """
    found: dict[int, list[float]] = {}
    for record in records:
        found.setdefault(record.session, []).append(record.fastest_ms)
    return found


def all_disturbed_stretches(
    levels_ms: Mapping[int, Sequence[float]], facts: Mapping[int, SessionFacts]
) -> frozenset[tuple[int, int]]:
    """The stretches that do not count; see `disturbed_stretches`.

    Args:
        levels_ms: What `reference_levels_ms` returns.
        facts: How sessions were measured.
    """
    return frozenset(
        (session, number)
        for session, of_session in levels_ms.items()
        for number in disturbed_stretches(
            of_session, facts.get(session, SessionFacts(session)).config.tolerance
        )
    )


def what_was_wanted(configs: Sequence[MeasureConfig], asked_rounds: int = 0) -> MeasureConfig:
    """What a key has to reach to be known as well as was asked.

    A session may have wanted more rounds than are asked for in the end: one that was killed did,
    and winners are measured longer. So it is the last word that counts, not the most that was ever
    wanted; where no word is known, it is the least.

    Args:
        configs: How the sessions that measured the key were measured.
        asked_rounds: Rounds that were asked for when measuring was last finished; 0 if unknown.
    """
    most = max(configs, key=lambda config: config.rounds)
    last_word = asked_rounds or min(config.rounds for config in configs)
    return replace(most, rounds=min(most.rounds, last_word))
