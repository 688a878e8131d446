"""Files that stages read from each other; a missing one names the command that writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from devices.files import sha256_of
from edgesearch.errors import StageError


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
    """The values of a JSON file that a stage wrote.

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
