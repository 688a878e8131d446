"""The file of a latency table: JSON lines that are only ever appended, by one process at a time."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import warnings
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from devices.errors import UserNotice
from profilers.errors import TableError

FORMAT = 1

_HEADER_MAX_BYTES = 1 << 16


def read_table(path: Path) -> tuple[dict[str, Any], list[tuple[int, dict[str, Any]]]]:
    """Read a table.

    A torn last line, which a killed writer leaves, is dropped with a `UserNotice`.

    Args:
        path: The table.

    Returns:
        The header, and the other lines with their numbers (the header is line 1).

    Raises:
        TableError: If it cannot be read, is no latency table, is of a newer format, or is damaged
            elsewhere than at its end.
    """
    with _os_errors_as_table_errors(path, "read"), path.open("rb") as file:
        _check_is_regular(file.fileno(), path)
        # A file that is something else is found out before all of it is read.
        header = _parse_header(file.readline(_HEADER_MAX_BYTES), path)
        data = file.read()
    intact = data[: _intact_length(data)]
    if len(intact) < len(data):
        _warn_of_torn_line(path)
    lines = []
    for number, line in enumerate(intact.splitlines(), start=2):
        values = _parse_line(line)
        if values is None:
            raise TableError(
                f"{path} must hold one JSON object in each line",
                f"line {number}: {line[:60].decode(errors='replace')!r}",
                "Remove this line: what is missing is measured again.",
            )
        lines.append((number, values))
    return header, lines


class TableFile:
    """A table opened for appending; a context manager.

    Args:
        path: The table. Made, with its folder, if it is not there and a header is given.
        header: First line of a new table.
    """

    def __init__(self, path: Path, header: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._header = header

    def __enter__(self) -> TableFile:
        """Open and lock the file; take a torn last line away.

        Raises:
            TableError: If it cannot be written, another process is writing it, or it is no table.
        """
        with _os_errors_as_table_errors(self._path, "write"):
            if self._header is not None and not self._path.exists():
                _create(self._path, self._header)
            self._file = FileIO(self._path, "r+")
            try:
                _check_is_regular(self._file.fileno(), self._path)
                _lock(self._file, self._path)
                self._cut_torn_line()
            except BaseException:
                self._file.close()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file, which also unlocks it."""
        self._file.close()

    def append(self, values: Mapping[str, Any]) -> None:
        """Append a line; afterwards even a killed process has left it in the file.

        Raises:
            TableError: If it cannot be written. The table is as it was before.
        """
        line = _line(values)
        with _os_errors_as_table_errors(self._path, "append to"):
            end = self._file.seek(0, os.SEEK_END)
            try:
                written = 0
                while written < len(line):
                    written += self._file.write(line[written:]) or 0
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(end)
                raise

    def sync(self) -> None:
        """Wait until what was appended survives a power cut.

        Raises:
            TableError: If it cannot be written.
        """
        with _os_errors_as_table_errors(self._path, "append to"):
            os.fsync(self._file.fileno())

    def _cut_torn_line(self) -> None:
        self._file.seek(0)
        start = self._file.read(_HEADER_MAX_BYTES)
        header, newline, _ = start.partition(b"\n")
        _parse_header(header + newline, self._path)
        data = start[len(header) + 1 :] + self._file.readall()
        torn_bytes = len(data) - _intact_length(data)
        if torn_bytes:
            _warn_of_torn_line(self._path)
            self._file.truncate(len(header) + 1 + len(data) - torn_bytes)


def _create(path: Path, header: Mapping[str, Any]) -> None:
    """Make a table of one line; it is there with its header, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(_line(header))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a renaming, it leaves alone what another one made
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, allow_nan=False).encode() + b"\n"


def _parse_header(line: bytes, path: Path) -> dict[str, Any]:
    values = _parse_line(line) if line.endswith(b"\n") else None
    if values is None or "format" not in values:
        raise TableError(
            f"{path} must be a latency table",
            f"a file that begins with {line[:40].decode(errors='replace')!r}"
            if line
            else "an empty file",
            "Move it away, or run `edgesearch profile` into another folder.",
        )
    if values["format"] != FORMAT:
        raise TableError(
            f"{path} must be a latency table of format {FORMAT}",
            f"format {values['format']!r}",
            "Use the version of edgesearch that wrote it, or measure again.",
        )
    return values


def _parse_line(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:  # also what is not UTF-8
        return None
    return values if isinstance(values, dict) else None


def _intact_length(data: bytes) -> int:
    """Return the length of some lines without their last one if that is torn."""
    end = data.rfind(b"\n") + 1
    begin = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
    # A power cut can leave a line of its full length with other contents.
    return end if _parse_line(data[begin:end]) is not None else begin


def _warn_of_torn_line(path: Path) -> None:
    text = (
        f"{path}: its last line is torn, as a command that was killed leaves it, and does not "
        "count; `edgesearch profile` measures what is missing"
    )
    warnings.warn(text, UserNotice, stacklevel=3)


def _check_is_regular(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise TableError(
            f"{path} must be a regular file", "a device or a pipe", "Choose another path."
        )


def _lock(file: FileIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two writers are not told of each other there
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TableError(
            f"{path} can be written by one process at a time",
            "another one that is writing it",
            "Wait for it, or stop it.",
        ) from error
    except OSError:
        pass  # a file system without locks


@contextlib.contextmanager
def _os_errors_as_table_errors(path: Path, action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        is_only_read = action == "read" or isinstance(error, FileNotFoundError)
        raise TableError(
            f"to {action} the latency table {path}",
            error.strerror or str(error),
            "Check the path and its permissions."
            if is_only_read
            else "Check the path, its permissions and the free space; then run the same again: "
            "what was measured is kept.",
        ) from error
