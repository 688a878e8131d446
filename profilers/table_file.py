"""The file of a latency table: append-only JSON lines with one writer at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from devices.errors import FileError
from devices.files import JsonLines
from devices.locks import locked
from profilers.errors import TableError

FORMAT = 1


def read_table(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The lines of a table with their numbers; the first is the header.

    Raises:
        FileError: It cannot be read, is of another kind, or is damaged before its end.
        TableError: It has another format.
    """
    lines = table_lines(path).read()
    found = lines[0][1].get("format") if lines else None
    if found != FORMAT:
        raise TableError(
            f"a latency table of format {FORMAT} at {path}",
            f"format {found!r}" if lines else "a file without a complete first line",
            "Move it away, or run `edgesearch profile` into another folder.",
        )
    return lines


@contextlib.contextmanager
def open_table(path: Path, header: Mapping[str, Any] | None = None) -> Iterator[JsonLines]:
    """Open a table for appending, and keep other writers out.

    If it is missing, a new one is created with `header` as first line.

    Raises:
        FileError: It cannot be written, another process is writing it, or it is no table.
    """
    if header is not None and not path.exists():
        _begin(path, header)
    if not path.exists():
        raise FileError(
            f"the latency table {path}", "no such file", "Run `edgesearch profile` first."
        )
    with locked(path):
        read_table(path)  # refuses other files before their last line is cut
        file = table_lines(path)
        file.read(cut=True)
        yield file


def table_lines(path: Path) -> JsonLines:
    """The JSON lines of a table."""
    return JsonLines(
        path, "a latency table", "Remove this line: what is missing is measured again."
    )


def _begin(path: Path, header: Mapping[str, Any]) -> None:
    """Create a table with its header, atomically."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        table_lines(partial).append(header)
        try:
            os.link(partial, path)  # unlike a rename, it keeps the table of another process
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
