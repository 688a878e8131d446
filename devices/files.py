"""Files that survive kills and full disks: replaced atomically, or append-only."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import stat
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from devices.errors import FileError, UserError, UserNotice, in_short

_FIRST_LINE_MAX_BYTES = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REMEDIES = {
    **dict.fromkeys(_FULL, "Free space or choose another output_dir"),
    errno.EROFS: "It is mounted read-only: choose another output_dir",
    errno.EACCES: "Get the permission to write there, or choose another output_dir",
    errno.EPERM: "Get the permission to write there, or choose another output_dir",
    errno.ENAMETOOLONG: "Choose an output_dir with a shorter path",
    errno.ENOTDIR: "A file is in the way: move it, or choose another output_dir",
    errno.EISDIR: "A folder is in the way: move it, or choose another output_dir",
    errno.EEXIST: "A file is in the way: move it, or choose another output_dir",
    errno.EMFILE: "Raise the limit of open files (ulimit -n 1024)",
}
_OTHER_REMEDY = "Check the disk, or choose another output_dir"
_NOT_OFFERED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EBADF}
"""What a file system answers that does not offer `fsync`, or not for folders."""


@contextlib.contextmanager
def replacing(
    path: Path, *, keep_former: Path | None = None, shared: bool = False
) -> Iterator[Path]:
    """Write a file atomically and durably: yield a temporary file, rename it if the block succeeds.

    Args:
        path: The file; its folder is created if missing.
        keep_former: Rename the present file to this instead of losing it.
        shared: Several processes may write this file at once, as in a cache.

    Yields:
        A path in the same folder; removed if the block fails.

    Raises:
        FileError: The file cannot be written; the present one is unchanged.
    """
    number = f".{os.getpid()}" if shared else ""
    partial = path.with_name(f".{path.name}{number}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _usual_mode(partial)
        yield partial
        if stat.S_IMODE(partial.stat().st_mode) != mode:
            partial.chmod(mode)
        with partial.open("rb+") as file:
            _sync(file.fileno())
        if keep_former is not None and path.exists():
            os.replace(path, keep_former)
        os.replace(partial, path)
        if not shared:  # a cache can be made again
            _sync_folder(path.parent)
    except OSError as error:
        raise _cannot("write", path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_bytes(path: Path, content: bytes | memoryview, keep_former: Path | None = None) -> None:
    """Write a file atomically; see `replacing`."""
    with replacing(path, keep_former=keep_former) as partial:
        partial.write_bytes(content)


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file atomically; see `write_bytes`."""
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())


def refuse_no_folder(path: Path) -> None:
    """Refuse an output folder where something else is in the way, before any work is done for it.

    Raises:
        FileError: The path, or one above it, is a file or a link that leads nowhere; or the folder
            does not exist and cannot be made.
    """
    above = (path.absolute(), *path.absolute().parents)
    place = next(each for each in above if each.exists() or each.is_symlink())
    if not place.exists():
        found = f"{place} is a link to {os.readlink(place)}, which does not exist"
    elif not place.is_dir():
        found = f"{place} is a file"
    elif place != above[0] and not os.access(place, os.W_OK | os.X_OK):
        found = f"no permission to write in {place}"
    else:
        return
    raise FileError(
        f"a writable folder at {path.absolute()}", found, "Choose another folder: output_dir=PATH."
    )


def numbered(path: Path, number: int) -> Path:
    """The name under which a file or folder is set aside."""
    return path.with_name(f"{path.name}.{number}")


def next_number(path: Path) -> int:
    """The least number from 1 under which nothing is set aside yet."""
    return next(number for number in itertools.count(1) if not numbered(path, number).exists())


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class JsonLines:
    """An append-only file of JSON objects, one a line.

    A kill or a power failure can tear the last line: `read` leaves it out. Before appending, call
    `read(cut=True)`, and keep other writers out (`devices.locks`).

    Args:
        path: The file; it may be missing.
        holds: The kind of file for messages, such as "trials of a search".
        remedy: What to do about a damaged line.
    """

    def __init__(self, path: Path, holds: str, remedy: str) -> None:
        self.path = path
        self._holds = holds
        self._remedy = remedy

    def read(self, *, cut: bool = False) -> list[tuple[int, dict[str, Any]]]:
        """The objects with their line numbers, from 1; a torn last line gives a `UserNotice`.

        Args:
            cut: Also remove a torn last line from the file, so that lines can be appended.

        Raises:
            FileError: The file cannot be read, is of another kind, or is damaged before its end
                (names the line).
        """
        try:
            data = self._read_bytes()
            intact = _intact(data)
            if cut:
                os.truncate(self.path, len(intact))
            if len(intact) < len(data):
                warnings.warn(
                    f"{self.path}: its last line is torn, as by a killed command, and is ignored; "
                    "its content is made again",
                    UserNotice,
                    stacklevel=2,
                )
        except OSError as error:
            raise FileError(
                f"to read {self.path}",
                error.strerror or str(error),
                "Check the path and its permissions.",
            ) from error
        lines = []
        for number, line in enumerate(intact.splitlines(), start=1):
            values = _object(line)
            if values is None:
                raise self._damaged(f"line {number}: {line[:60].decode(errors='replace')!r}")
            lines.append((number, values))
        return lines

    @contextlib.contextmanager
    def line(self, number: int) -> Iterator[None]:
        """Turn errors of invalid values within the block into a FileError naming file and line."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
            raise self._damaged(f"line {number}: {in_short(error)}") from error

    def append(self, values: Mapping[str, Any], *, sync: bool = True) -> None:
        """Append a line; it survives a kill of the process.

        Args:
            values: Plain JSON values.
            sync: Also make it survive a power failure.

        Raises:
            FileError: It cannot be written; the file is unchanged.
        """
        line = json.dumps(values, allow_nan=False).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                try:
                    written = 0
                    while written < len(line):
                        written += file.write(line[written:])
                    if sync:
                        _sync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        file.truncate(end)
                    raise
        except OSError as error:
            raise _cannot("append to", self.path, error) from error

    def _read_bytes(self) -> bytes:
        with self.path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileError(
                    f"a regular file at {self.path}",
                    "a device or a pipe",
                    "Choose another path.",
                )
            # Refuse files of another kind before reading all of them.
            first = file.readline(_FIRST_LINE_MAX_BYTES)
            is_torn = not first.endswith(b"\n") and len(first) < _FIRST_LINE_MAX_BYTES
            if first and not (first.startswith(b"{") if is_torn else _object(first)):
                begin = first[:40].decode(errors="replace")
                found = f"a file that begins with {begin!r}"
                raise FileError(self._required, found, "Name another file, or move this one away.")
            return first + file.read()

    @property
    def _required(self) -> str:
        return f"{self._holds}, one JSON object a line, in {self.path}"

    def _damaged(self, found: str) -> FileError:
        return FileError(self._required, found, self._remedy)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:  # also raised for invalid UTF-8
        return None
    return values if isinstance(values, dict) else None


def _intact(data: bytes) -> bytes:
    """The lines without a torn last one."""
    end = data.rfind(b"\n") + 1
    begin = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
    # A power failure can leave a line of full length with wrong contents.
    return data[:end] if _object(data[begin:end]) is not None else data[:begin]


def _cannot(action: str, path: Path, error: OSError) -> FileError:
    """The error for a file that cannot be written; `action` is "write" or "append to"."""
    room = "room to" if error.errno in _FULL else "to"
    remedy = _REMEDIES.get(error.errno or 0, _OTHER_REMEDY)
    return FileError(
        f"{room} {action} {path}",
        error.strerror or str(error),
        f"{remedy}, then run the same command again.",
    )


def no_permission(error: OSError, path: Path | None = None) -> FileError:
    """The error for a file or folder that this user may not read or write."""
    place = path or error.filename
    return FileError(
        f"permission to read and write {place}" if place else "permission to read and write",
        error.strerror or str(error),
        "Get it from the owner, or name another file or folder, then run the same command again.",
    )


def _usual_mode(path: Path) -> int:
    """The mode that a new file gets there; libraries may write theirs for this user alone."""
    path.unlink(missing_ok=True)
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    return mode


def _sync(descriptor: int) -> None:
    """Make a file survive a power failure, where the file system offers that."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise


def _sync_folder(folder: Path) -> None:
    """Make renames survive a power failure."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)
