"""A latency table described in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from devices.values import in_yaml
from profilers.latency_table import LatencyTable
from profilers.steadiness import Steadiness
from profilers.table_identity import machine_mismatches
from profilers.workload import OWN_KEYS


def describe_table(
    table: LatencyTable,
    steadiness: Steadiness | None = None,
    nouns: Mapping[str, str] | None = None,
) -> list[str]:
    """Describe the device of a table, its content, and how reliable its figures are.

    Args:
        table: The table.
        steadiness: How steady the machine was; by default the table's.
        nouns: Nouns by kind of key; the kind itself for others.

    Raises:
        TableError: A session shares no key with the others.
    """
    spec, machine = table.spec, table.fingerprint
    through = f" through {spec.provider}" if spec.provider else ""
    gpu = f", {machine.gpu}" if machine.gpu else ""
    driver = f" with driver {machine.driver}" if machine.driver else ""
    device = (
        f"Latencies of the device {spec.name}: {machine.chip}{gpu}{driver}; {spec.runtime} "
        f"{machine.runtime_version}{through}, {spec.precision}, batch {spec.batch}, "
        f"{counted(spec.threads, 'thread')}."
    )
    if not table.sessions:
        return [device, *_clocks(table), "It holds no measurements yet."]
    steady = (steadiness or table.steadiness()).of_table
    return [
        device,
        *_clocks(table),
        _contents(table, nouns or {}),
        *_failure(table),
        f"{steady[0].upper()}{steady[1:]}.",
        *_sessions(table),
    ]


def _clocks(table: LatencyTable) -> list[str]:
    machine = table.fingerprint
    clock_ghz = " to ".join(f"{khz / 1e6:.2f}" for khz in machine.frequency_khz or ())
    parts = {
        "power mode ": machine.power_mode,
        "clock governor ": machine.governor,
        "clock ": clock_ghz and f"{clock_ghz} GHz",
    }
    text = ", ".join(name + value for name, value in parts.items() if value)
    return [f"{text[0].upper()}{text[1:]} when it was created."] if text else []


def _contents(table: LatencyTable, nouns: Mapping[str, str]) -> str:
    days = sorted({session.began[:10] for session in table.sessions if session.began})
    when = f", {days[0]}" if days else ""
    when += f" to {days[-1]}" if len(days) > 1 else ""
    kinds = dict.fromkeys(["block", *table.kinds().values()])
    counts = {kind: len(table.keys(kind)) for kind in kinds if kind not in OWN_KEYS}
    texts = [
        counted(count, nouns.get(kind, kind))
        for kind, count in counts.items()
        if count or kind == "block"
    ]
    listed = texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
    failed = f"; {counted(len(table.errors), 'key')} could not run" if table.errors else ""
    return (
        f"It holds {listed}, measured in {counted(len(table.sessions), 'session')}{when}{failed}."
    )


def _failure(table: LatencyTable) -> list[str]:
    """Why the first key, preferably a block, could not run, and the remedy."""
    if not table.errors:
        return []
    kinds = table.kinds()
    key, error = min(table.errors.items(), key=lambda item: kinds[item[0]] != "block")
    why = " ".join(error.split()).rstrip(".")
    return [
        f"{key} could not run because of: {why}. If the cause was temporary, such as a lack of "
        "memory, profile.retry_errors=true makes `edgesearch profile` and `validate` try again."
    ]


def _sessions(table: LatencyTable) -> list[str]:
    """Sessions that were merged, or measured on another state of the machine."""
    merged_from = [each.merged_from for each in table.sessions if each.merged_from]
    own = table.fingerprint.to_dict()
    sources = ", ".join(sorted(set(merged_from)))
    return [
        *([f"{counted(len(merged_from), 'session')} merged from {sources}."] if sources else ()),
        *(
            f"Session {session.number} was measured with {mismatch.field} "
            f"{in_yaml(mismatch.found)}, not {in_yaml(mismatch.wanted)}."
            for session in table.sessions
            for mismatch in machine_mismatches(session.fingerprint, own)
        ),
    ]


def counted(count: int, noun: str) -> str:
    """Such as "1 block" or "2 blocks"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
