"""Merges latency tables of the same device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.values import in_yaml
from profilers.errors import TableError, TableMismatchError
from profilers.latency_table import LatencyTable
from profilers.table_file import open_table, read_table
from profilers.table_identity import machine_mismatches, spec_mismatches

_Line = dict[str, Any]


@dataclass(frozen=True)
class MergeResult:
    """Result of merging the table `other_path` into another.

    Attributes:
        sessions: Number of sessions of which something was added.
        known: Number of sessions that were already complete.
        samples: Number of rounds added.
    """

    other_path: Path
    sessions: int
    known: int
    samples: int


def merge_tables(path: Path, other_path: Path) -> MergeResult:
    """Append the sessions of the table at `other_path`, with new numbers.

    Sessions are identified by content: what both tables hold, because one is a copy of the other
    or was merged before, is not added again. A merge that was stopped or killed leaves a usable
    table; merging again completes it.

    Notes are not merged, and the table's present notes are invalidated, since they were derived
    from fewer sessions. Errors of keys that the table has measured are left out.

    Raises:
        FileError: If one cannot be read, or the table cannot be written or another process is
            writing it.
        TableError: If a session of the other shares no key with the table.
        TableMismatchError: If they are of different devices; names the field.
    """
    with open_table(path) as file:
        table, other = LatencyTable.load(path), LatencyTable.load(other_path)
        _check_alike(table, other)
        added, known = _what_is_new(table, path, other_path)
        lines = [
            {"session": number, **line}
            for number, of_session in added.items()
            for line in ({"type": "merge", "source": other_path.name}, *of_session)
        ]
        _check_comparable(table, other_path, lines)
        for number, line in enumerate(lines, 1):
            file.append(line, sync=number == len(lines))
    samples = sum("samples_ms" in line for line in lines)
    return MergeResult(other_path, len(added), known, samples)


def _check_alike(table: LatencyTable, other: LatencyTable) -> None:
    """Refuse a table, or a session of it, of another device."""
    own = table.fingerprint.to_dict()
    differing = [("", mismatch) for mismatch in spec_mismatches(other.spec, table.spec)]
    for where, machine in (
        ("", other.fingerprint.to_dict()),
        *((f" in session {each.number}", each.fingerprint) for each in other.sessions),
    ):
        differing += [(where, mismatch) for mismatch in machine_mismatches(machine, own)]
    for where, mismatch in differing:
        raise TableMismatchError(
            f"a latency table of {mismatch.field} {in_yaml(mismatch.wanted)}, like {table.path}, "
            f"at {other.path}",
            f"{mismatch.field} {in_yaml(mismatch.found)}{where}",
            "Keep the two apart: only tables of the same device and versions are merged.",
        )


def _what_is_new(
    table: LatencyTable, path: Path, other_path: Path
) -> tuple[dict[int, list[_Line]], int]:
    """Lines to add by session number, and the number of sessions that are already complete."""
    ours = {number: _without_errors(lines) for number, lines in _lines_by_session(path).items()}
    added: dict[int, list[_Line]] = {}
    known, keys = 0, table.kinds()
    for lines in _lines_by_session(other_path).values():
        wanted = [line for line in lines if "error" not in line or line["key"] not in keys]
        if not any("key" in line for line in wanted):
            continue  # the session was stopped before it measured anything
        twin = _twin(ours, _without_errors(wanted))
        number = max([0, table.last_session, *ours, *added]) + 1 if twin is None else twin
        rest = list(_rest(wanted, 0 if twin is None else len(ours[twin])))
        if rest:
            added[number] = rest
        else:
            known += 1
    return added, known


def _lines_by_session(path: Path) -> dict[int, list[_Line]]:
    """Lines of each session without its number, in order of the file."""
    found: dict[int, list[_Line]] = {}
    for _, line in read_table(path)[1:]:
        if "session" in line and line.get("type") not in ("merge", "note"):
            own = {name: value for name, value in line.items() if name != "session"}
            found.setdefault(line["session"], []).append(own)
    return found


def _without_errors(lines: Sequence[_Line]) -> list[str]:
    return [json.dumps(line, sort_keys=True) for line in lines if "error" not in line]


def _twin(ours: Mapping[int, list[str]], lines: Sequence[str]) -> int | None:
    """The present session that equals the given lines: one begins with the other."""
    for number, own in ours.items():
        shorter = min(len(own), len(lines))
        if shorter and own[:shorter] == lines[:shorter]:
            return number
    return None


def _rest(lines: Sequence[_Line], count: int) -> Iterator[_Line]:
    """All errors, and all other lines except the first `count`."""
    for line in lines:
        if "error" not in line and count > 0:
            count -= 1
        else:
            yield line


def _check_comparable(table: LatencyTable, other_path: Path, lines: Sequence[_Line]) -> None:
    """Check that the table is readable with the added lines."""
    for line in lines:
        table.add(line)
    try:
        for session in table.sessions:
            table.session_scale(session.number)
    except TableError as error:
        raise TableError(
            f"a key in each session of {other_path} that {table.path} has too, such as the "
            "reference workload",
            "a session that shares none",
            "Keep the two apart.",
        ) from error
