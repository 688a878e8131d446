"""What a latency table is, in words, from what its file holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profilers.latency_table import LatencyTable
from profilers.table_identity import machine_mismatches


def describe_table(table: LatencyTable) -> str:
    """Say what a table is of, what it holds, and how far it can be trusted.

    Args:
        table: The table.

    Returns:
        A few sentences, one a line.

    Raises:
        TableError: If a session shares nothing with the others.
    """
    return "\n".join([_device(table), *_clocks(table), *_contents(table), *_corrections(table)])


def _device(table: LatencyTable) -> str:
    spec, machine = table.spec, table.fingerprint
    through = f" through {spec.provider}" if spec.provider else ""
    gpu = f", {machine.gpu}" if machine.gpu else ""
    driver = f" with driver {machine.driver}" if machine.driver else ""
    return (
        f"Latencies of the device {spec.name}: {machine.chip}{gpu}{driver}; {spec.runtime} "
        f"{machine.runtime_version}{through}, {spec.precision}, batch {spec.batch}, "
        f"{_counted(spec.threads, 'thread')}."
    )


def _clocks(table: LatencyTable) -> list[str]:
    machine = table.fingerprint
    known = []
    if machine.power_mode:
        known.append(f"power mode {machine.power_mode}")
    if machine.governor:
        known.append(f"clock governor {machine.governor}")
    if machine.frequency_khz:
        low, high = (f"{khz / 1e6:.2f}" for khz in machine.frequency_khz)
        known.append(f"clock {low} to {high} GHz")
    if not known:
        return []
    text = ", ".join(known)
    return [f"{text[0].upper()}{text[1:]} when it was begun."]


def _contents(table: LatencyTable) -> list[str]:
    sessions = table.sessions
    if not sessions:
        return ["It holds no measurements yet."]
    days = sorted({session.began[:10] for session in sessions if session.began})
    when = f", {days[0]}" if days else ""
    when += f" to {days[-1]}" if len(days) > 1 else ""
    counts = [_counted(len(table.keys("block")), "block")]
    for kind, noun in (("network", "whole network"), ("validation", "held-out network")):
        if table.keys(kind):
            counts.append(_counted(len(table.keys(kind)), noun))
    failed = f"; {_counted(len(table.errors), 'key')} could not run" if table.errors else ""
    steadiness = str(table.steadiness())
    found = [
        f"It holds {_listed(counts)}, measured in {_counted(len(sessions), 'session')}{when}"
        f"{failed}.",
        *_failure(table),
        f"{steadiness[0].upper()}{steadiness[1:]}.",
    ]
    sources = sorted({session.merged_from for session in sessions if session.merged_from})
    if sources:
        merged = sum(session.merged_from is not None for session in sessions)
        found.append(f"{_counted(merged, 'session')} merged from {', '.join(sources)}.")
    own = table.fingerprint.to_dict()
    for session in sessions:
        for mismatch in machine_mismatches(session.fingerprint, own):
            found.append(
                f"Session {session.number} was measured with {mismatch.field} {mismatch.found!r}, "
                f"not {mismatch.wanted!r}."
            )
    return found


def _failure(table: LatencyTable) -> list[str]:
    """Why the first key could not run, a block if there is one, and what can be done about it."""
    kinds = table.kinds()
    for key, error in sorted(table.errors.items(), key=lambda item: kinds[item[0]] != "block"):
        why = " ".join(error.split()).rstrip(".")
        return [
            f"{key} could not run because of: {why}. If that has passed, as a lack of memory does, "
            "`edgesearch profile` and `validate` try again what they need of what could not run "
            "with profile.retry_errors=true."
        ]
    return []


def _corrections(table: LatencyTable) -> list[str]:
    if not table.corrections:
        return ["No prediction of whole networks is fitted to it: `edgesearch profile` does that."]
    return [_correction(hash_, values) for hash_, values in table.corrections.items()]


def _correction(space_hash: str, values: Mapping[str, Any]) -> str:
    text = f"Predictions in the space {space_hash[:8]} are fitted to "
    text += f"{_counted(values['networks'], 'network')}: mean error {values['fit_mape']:.1%}"
    if values.get("loo_mape") is not None:
        text += f", {values['loo_mape']:.1%} on each when it is left out"
    checked = values.get("validation")
    if checked is None:
        return f"{text}; not validated on others yet."
    return f"{text}; {checked['mape']:.1%} (worst {checked['worst']:.1%}) on {checked['n']} others."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
