"""Files that one stage writes and another reads; the error for a missing file names the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from devices.files import no_permission, sha256_of
from edgesearch.errors import StageError


def digest_of(path: Path, made_by: str) -> str:
    """SHA-256 of a file that a stage wrote.

    Raises:
        StageError: The file is missing or cannot be read.
        FileError: This user may not read it.
    """
    try:
        return sha256_of(path)
    except PermissionError as error:
        raise no_permission(error, path) from error
    except OSError as error:
        raise _unreadable(path, made_by, error) from error


def read_json(path: Path, made_by: str) -> Any:
    """The content of a JSON file that a stage wrote.

    Raises:
        StageError: The file is missing or damaged.
        FileError: This user may not read it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise no_permission(error, path) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, made_by, error) from error


def _unreadable(path: Path, made_by: str, error: Exception) -> StageError:
    run = f"un `edgesearch {made_by}` with the same configuration"
    return StageError(
        f"the file {path}, which `edgesearch {made_by}` writes",
        "no such file" if isinstance(error, FileNotFoundError) else str(error),
        # what is missing is made again in any case
        f"Move it away, and r{run}." if isinstance(error, ValueError) else f"R{run} first.",
    )
