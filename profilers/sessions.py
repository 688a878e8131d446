"""What joins the sessions of a table, and which of their rounds count."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from profilers.latency_record import ANCHOR, LatencyRecord
from profilers.measure import MeasureConfig
from profilers.steadiness import disturbed_stretches
from profilers.workload import OVERHEAD_KEY, REFERENCE_KEY

Records = Mapping[str, Sequence[LatencyRecord]]
"""Records with samples, by key."""


@dataclass(frozen=True)
class SessionFacts:
    """What a table says of one of its sessions.

    Attributes:
        number: Its number.
        merged_from: Name of the file that it was merged from; None if it was measured into this
            table.
        began: When it began, as `YYYY-MM-DDThh:mm:ssZ`; None in tables of earlier versions.
        fingerprint: What was there, as plain JSON values; empty where it was not kept.
    """

    number: int
    merged_from: str | None = None
    began: str | None = None
    fingerprint: Mapping[str, Any] = field(default_factory=dict)


def session_scales(
    records: Records, disturbed: Collection[tuple[int, int]] = ()
) -> dict[int, float]:
    """Return the factors that make sessions comparable with the first one.

    They come from all that a session shares with earlier ones. Compared are lower quartiles of the
    rounds' minima, which depend less on the number of rounds than lower quantiles do. Rounds in
    which the machine was disturbed do not count where there are others: in a bad hour they are most
    of them.

    Args:
        records: All that was measured.
        disturbed: Session and number of the stretches that do not count.

    Returns:
        Factors by session; a session that shares nothing with earlier ones is not among them.
    """
    known_ms: dict[str, float] = {}
    scales: dict[int, float] = {}
    for session, found_ms in sorted(_lows_by_session(records, disturbed).items()):
        shared = [known_ms[key] / low_ms for key, low_ms in found_ms.items() if key in known_ms]
        if not shared and known_ms:
            continue
        scales[session] = float(np.median(shared)) if shared else 1.0
        for key, low_ms in found_ms.items():
            known_ms.setdefault(key, scales[session] * low_ms)
    return scales


def _lows_by_session(
    records: Records, disturbed: Collection[tuple[int, int]]
) -> dict[int, dict[str, float]]:
    return {
        session: {
            key: _low_ms(of_key, disturbed)
            for key, of_key in of_session.items()
            if key != OVERHEAD_KEY  # too short to tell anything
        }
        for session, of_session in _by_session(records).items()
    }


def _by_session(records: Records) -> dict[int, dict[str, list[LatencyRecord]]]:
    """Records by session and key; an anchor has the key of the network that it is."""
    found: dict[int, dict[str, list[LatencyRecord]]] = {}
    for key, of_key in records.items():
        for record in of_key:
            of_session = found.setdefault(record.session, {})
            of_session.setdefault(key.removeprefix(ANCHOR), []).append(record)
    return found


def _low_ms(records: Sequence[LatencyRecord], disturbed: Collection[tuple[int, int]]) -> float:
    minima_ms = [min(record.samples_ms or ()) for record in undisturbed(records, disturbed)]
    return float(np.quantile(minima_ms, 0.25))


def undisturbed(
    records: Sequence[LatencyRecord], disturbed: Collection[tuple[int, int]]
) -> Sequence[LatencyRecord]:
    """Return the records of when the machine was not disturbed; all if it always was.

    Args:
        records: Of one key.
        disturbed: Session and number of the stretches that do not count.
    """
    calm = [record for record in records if (record.session, record.stretch) not in disturbed]
    return calm or records


def fastest_runs_ms(records: Records) -> dict[int, dict[str, float]]:
    """Return the fastest run of each key by session, as it was measured there, anchors included."""
    return {
        session: {
            key: min(min(record.samples_ms or ()) for record in of_key)
            for key, of_key in of_session.items()
        }
        for session, of_session in _by_session(records).items()
    }


def reference_levels_ms(records: Records) -> dict[int, list[float]]:
    """Return the reference's fastest run each time that it was measured, by session."""
    found: dict[int, list[float]] = {}
    for record in records.get(REFERENCE_KEY, ()):
        found.setdefault(record.session, []).append(min(record.samples_ms or ()))
    return found


def all_disturbed_stretches(
    records: Records, configs: Mapping[int, MeasureConfig]
) -> frozenset[tuple[int, int]]:
    """Return session and number of the stretches that do not count; see `disturbed_stretches`.

    Args:
        records: All that was measured.
        configs: How sessions were measured.
    """
    return frozenset(
        (session, number)
        for session, levels_ms in reference_levels_ms(records).items()
        for number in disturbed_stretches(
            levels_ms, configs.get(session, MeasureConfig()).tolerance
        )
    )


def what_was_wanted(
    sessions: Collection[int], configs: Mapping[int, MeasureConfig], asked_rounds: int = 0
) -> MeasureConfig:
    """Return what a key has to reach to be known as well as was asked.

    A session may have wanted more rounds than are asked for in the end: one that was killed did,
    and the export measures its winners longer. So it is the last word that counts, not the most
    that was ever wanted; where no word is known, it is the least.

    Args:
        sessions: Those that measured the key.
        configs: How sessions were measured.
        asked_rounds: Rounds that were asked for when measuring was last finished; 0 if unknown.
    """
    wanted = [configs.get(session, MeasureConfig()) for session in sessions]
    most = max(wanted, key=lambda config: config.rounds)
    last_word = asked_rounds or min(config.rounds for config in wanted)
    return replace(most, rounds=min(most.rounds, last_word))
