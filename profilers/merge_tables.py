"""Taking over into a table what another table of the same device holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profilers.errors import TableError, TableMismatchError
from profilers.latency_table import LatencyTable
from profilers.table_file import open_table, read_table
from profilers.table_identity import Mismatch, machine_mismatches, spec_mismatches

_Line = dict[str, Any]


@dataclass(frozen=True)
class MergeResult:
    """What merging a table added to another one.

    Attributes:
        other_path: The table that was taken over.
        sessions: Sessions of which something was added.
        known: Sessions of which everything had been there.
        samples: Rounds that were added.
    """

    other_path: Path
    sessions: int
    known: int
    samples: int


def merge_tables(path: Path, other_path: Path) -> MergeResult:
    """Append the sessions of another table, under numbers of their own.

    Sessions are known by their content: what both tables hold, because one began as a copy of the
    other, or was merged before, is not added again. A merge that was stopped, killed included,
    leaves a table that can be used, and is finished by merging again.

    Notes are not taken over, and those that were there do not count any more: what was derived
    from a table has to be derived anew. Errors of keys that are measured here are left out.

    Args:
        path: Gets the sessions.
        other_path: Is only read.

    Raises:
        FileError: If one cannot be read, or the table cannot be written or another process is
            writing it.
        TableError: If the other holds nothing to compare its latencies by.
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
    """Refuse a table of another device, or with a session that was measured on another one."""
    own = table.fingerprint.to_dict()
    _refuse(table, other, "", spec_mismatches(other.spec, table.spec))
    _refuse(table, other, "", machine_mismatches(other.fingerprint.to_dict(), own))
    for session in other.sessions:
        where = f" in session {session.number}"
        _refuse(table, other, where, machine_mismatches(session.fingerprint, own))


def _refuse(
    table: LatencyTable, other: LatencyTable, where: str, mismatches: Sequence[Mismatch]
) -> None:
    for mismatch in mismatches:
        raise TableMismatchError(
            f"{other.path} must be of {mismatch.field} {mismatch.wanted!r}, as {table.path} is",
            f"{mismatch.field} {mismatch.found!r}{where}",
            "Keep the two apart: only tables of the same device and versions are merged.",
        )


def _what_is_new(
    table: LatencyTable, path: Path, other_path: Path
) -> tuple[dict[int, list[_Line]], int]:
    """Lines to add, by the session that they are added to; and how many sessions are complete."""
    ours = {number: _without_errors(lines) for number, lines in _lines_by_session(path).items()}
    added: dict[int, list[_Line]] = {}
    known, keys = 0, table.kinds()
    for lines in _lines_by_session(other_path).values():
        wanted = [line for line in lines if "error" not in line or line["key"] not in keys]
        if not any("key" in line for line in wanted):
            continue  # it was stopped before anything was measured
        twin = _twin(ours, _without_errors(wanted))
        number = max([0, table.last_session, *ours, *added]) + 1 if twin is None else twin
        rest = list(_rest(wanted, 0 if twin is None else len(ours[twin])))
        if rest:
            added[number] = rest
        else:
            known += 1
    return added, known


def _lines_by_session(path: Path) -> dict[int, list[_Line]]:
    """What each session of a table holds, without its number, in the order of the file."""
    found: dict[int, list[_Line]] = {}
    for _, line in read_table(path)[1:]:
        if "session" in line and line.get("type") not in ("merge", "note"):
            own = {name: value for name, value in line.items() if name != "session"}
            found.setdefault(line["session"], []).append(own)
    return found


def _without_errors(lines: Sequence[_Line]) -> list[str]:
    return [json.dumps(line, sort_keys=True) for line in lines if "error" not in line]


def _twin(ours: Mapping[int, list[str]], lines: Sequence[str]) -> int | None:
    """The session of which lines are the same session: one begins with the other."""
    for number, own in ours.items():
        shorter = min(len(own), len(lines))
        if shorter and own[:shorter] == lines[:shorter]:
            return number
    return None


def _rest(lines: Sequence[_Line], count: int) -> Iterator[_Line]:
    """All errors, and all other lines but the first so many."""
    for line in lines:
        if "error" not in line and count > 0:
            count -= 1
        else:
            yield line


def _check_comparable(table: LatencyTable, other_path: Path, lines: Sequence[_Line]) -> None:
    """Make sure that the table can be read with the lines in it."""
    for line in lines:
        table.add(line)
    try:
        for session in table.sessions:
            table.session_scale(session.number)
    except TableError as error:
        raise TableError(
            f"{other_path} must hold something that {table.path} holds, too, in each session, such "
            "as the reference workload",
            "a session that shares nothing with it",
            "Keep the two apart.",
        ) from error
