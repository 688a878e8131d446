"""Command table: describes, exports and merges latency table files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devices.errors import FileError
from edgesearch.latency.table import describe, write_csv
from edgesearch.run.files import RunFiles
from profilers import LatencyTable, MergeResult, merge_tables


@dataclass(frozen=True)
class TableResult:
    """Result of `share_table`.

    Attributes:
        place: Where the stages look for it, relative to an output folder.
    """

    table_path: Path
    place: Path
    description: str
    merges: tuple[MergeResult, ...]
    csv_path: Path | None


def share_table(path: Path, *, merge: Sequence[Path] = (), export_csv: bool = False) -> TableResult:
    """Describe a latency table file, after merging other tables of the same device into it.

    The CSV, `<name>.table.csv`, has no predictions, which need the search space.

    Raises:
        FileError: A table cannot be read, or a file cannot be written.
        TableMismatchError: A table to merge is of another device; names the field.
    """
    with _advising(path):
        merges = tuple(merge_tables(path, other) for other in merge)
    table = LatencyTable.load(path)
    with _advising(path):
        csv_path = write_csv(table) if export_csv else None
    return TableResult(
        table_path=path,
        place=RunFiles(Path()).table(table.spec),
        description=describe(table),
        merges=merges,
        csv_path=csv_path,
    )


@contextmanager
def _advising(path: Path) -> Iterator[None]:
    """Advise another place for the table: this command has no output folder to choose."""
    try:
        yield
    except FileError as error:
        if "output_dir" not in error.remedy:
            raise
        remedy = f"Copy {path.name} to a folder that can be written to, and pass the copy."
        raise FileError(error.required, error.found, remedy) from error
