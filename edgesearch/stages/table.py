"""Latency tables as files that people send each other: described, exported, merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesearch.latency.table import describe
from edgesearch.latency.table_csv import write_csv
from edgesearch.run.files import RunFiles
from profilers import LatencyTable, MergeResult, merge_tables


@dataclass(frozen=True)
class TableResult:
    """What a latency table is.

    Attributes:
        table_path: The file.
        place: Where the stages look for it, in an output folder.
        description: What it is, in words.
        merges: What was taken over from other tables.
        csv_path: Its figures as CSV; None if they were not asked for.
    """

    table_path: Path
    place: Path
    description: str
    merges: tuple[MergeResult, ...]
    csv_path: Path | None


def share_table(path: Path, *, merge: Sequence[Path] = (), export_csv: bool = False) -> TableResult:
    """Say what a table is, wherever the file comes from.

    Args:
        path: The table.
        merge: Tables of the same device that are taken over into it first.
        export_csv: Whether to write its figures beside it, as `<name>.table.csv`: without the
            predictions, which only `profile` knows.

    Raises:
        FileError: A table cannot be read, or the first one or the CSV file not be written.
        TableMismatchError: A table to merge is of another device; names the field.
    """
    merges = tuple(merge_tables(path, other) for other in merge)
    table = LatencyTable.load(path)
    return TableResult(
        table_path=path,
        place=RunFiles(Path()).table(table.spec),
        description=describe(table),
        merges=merges,
        csv_path=write_csv(table) if export_csv else None,
    )
