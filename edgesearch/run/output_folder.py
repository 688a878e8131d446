"""The folder that a run writes to: one writer, and files that stages read from each other."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devices.files import sha256_of
from devices.files import write_bytes as write_bytes
from devices.files import write_json as write_json
from devices.locks import locked
from edgesearch.errors import StageError


@contextlib.contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """Make sure of a folder that can be written to, and keep other writers out of it.

    Raises:
        FileError: The folder cannot be made or written to, or another process writes to it.
    """
    with locked(path / ".lock", protects=path):
        yield path


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
