"""The folder that a run writes to: one writer, and a place that can be written to."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from edgesearch.errors import StageError
from edgesearch.export.manifest import sha256_of

_held: set[IO[str]] = set()
"""The locks of this process."""


def _let_go() -> None:
    """A forked process, such as one that loads images, may outlive the one that was killed."""
    for lock in _held:
        lock.close()
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """Make sure of a folder that can be written to, and keep other writers out of it.

    Raises:
        StageError: The folder cannot be made or written to, or another process writes to it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise StageError(
            f"an output folder that can be written to at {path.absolute()}",
            error.strerror or str(error),
            "Choose another place: output_dir=PATH.",
        ) from error
    with lock:
        _lock(lock.fileno(), path)
        _held.add(lock)
        try:
            yield path
        finally:
            _held.discard(lock)


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StageError(
            f"to be the only process that writes to {path.absolute()}",
            "another one that is at work there",
            "Wait for it, or choose another output_dir.",
        ) from error


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file atomically.

    Raises:
        StageError: It cannot be written.
    """
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        StageError: It cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise StageError(
            f"room to write {path}",
            error.strerror or str(error),
            "Free space or choose another output_dir, then run the same command again.",
        ) from error


def digest_of(path: Path, made_by: str) -> str:
    """The SHA-256 of a file that a stage wrote.

    Raises:
        StageError: It is missing or cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise _unreadable(path, made_by, error) from error


def read_json(path: Path, made_by: str) -> Any:
    """Read a JSON file that a stage wrote.

    Raises:
        StageError: It is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, made_by, error) from error


def _unreadable(path: Path, made_by: str, error: Exception) -> StageError:
    return StageError(
        f"the file {path}, which `edgesearch {made_by}` writes",
        "no such file" if isinstance(error, FileNotFoundError) else str(error),
        f"Run `edgesearch {made_by}` with the same configuration first.",
    )
