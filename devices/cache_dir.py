"""The folder of files that can be made again: exported blocks, built engines."""

from __future__ import annotations

import os
from pathlib import Path

from devices.errors import FileError


def default_cache_dir() -> Path:
    """`$EDGESEARCH_CACHE`; else `edgesearch` in `$XDG_CACHE_HOME` or in `~/.cache`.

    Raises:
        FileError: There is no such folder and it cannot be made, or it cannot be written to.
    """
    given = os.environ.get("EDGESEARCH_CACHE")
    if given:
        return Path(os.path.expanduser(given))
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # as its specification says
        base = os.path.expanduser("~/.cache")
    return writable_cache(Path(base) / "edgesearch")


def writable_cache(folder: Path) -> Path:
    """The folder itself, made if it is missing.

    Raises:
        FileError: It cannot be made, or it cannot be written to.
    """
    try:
        if folder.parts[:1] == ("~",):
            raise FileNotFoundError(0, "no home folder")
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "not writable")
    except OSError as error:
        raise FileError(
            f"a folder for exported blocks and engines that can be written, such as {folder}",
            error.strerror or str(error),
            "Set EDGESEARCH_CACHE=FOLDER in the environment, or profile.cache_dir=FOLDER for the "
            "blocks of `profile`.",
        ) from error
    return folder
