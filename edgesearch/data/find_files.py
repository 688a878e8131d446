"""The files below a folder, and everything there that is left out, with the reason."""

from __future__ import annotations

import io
import os
import re
import stat
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from edgesearch.data.file_kinds import NO_IMAGE
from edgesearch.data.layout import Parts
from edgesearch.errors import UserNotice

WhyNot = Callable[[str, Callable[[], BinaryIO]], str | None]
"""The reason against a file, None for a wanted one; gets its name and a function that opens it."""

SYSTEM_FOLDERS = {
    *("__MACOSX", "__pycache__", "@eaDir", "#recycle", "$RECYCLE.BIN"),
    *("System Volume Information", "lost+found"),
}
OUTPUT = "written by edgesearch"
HIDDEN = "hidden"
BACK = "leading back to a folder above"
TELL_EVERY_S = 10.0
"""Seconds between two notices of a long search."""
TWICE = "leading to a folder that is read already"
_EXTENSION = re.compile(r"\.[a-z]\w{1,4}$", re.I)
"""Of a dangling link that was a file rather than a folder."""
HARMLESS = (NO_IMAGE, OUTPUT, HIDDEN, BACK)
"""Reasons that concern no image of the user's."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file that may be read, with its size in bytes."""

    path: Path
    parts: Parts
    size: int


@dataclass
class Found:
    """What lies below a folder.

    Attributes:
        files: In natural order.
        folders: All folders that were looked into, in no order.
        left_out: Reason and place of what is not used; a folder ends in "".
    """

    files: list[FoundFile] = field(default_factory=list)
    folders: set[Parts] = field(default_factory=set)
    left_out: list[tuple[str, Parts]] = field(default_factory=list)

    @property
    def unread(self) -> list[Parts]:
        """What may have held images and could not be read."""
        return [parts for reason, parts in self.left_out if reason not in HARMLESS]


def find_files(
    root: Path,
    why_not: WhyNot,
    is_output: Callable[[Path], bool],
) -> Found:
    """Find the files at any depth below a folder that can be read.

    Links are followed, each folder once. Not found are hidden files and folders, those of operating
    systems, and what edgesearch itself has written.

    Args:
        root: The folder.
        why_not: Tells which files are wanted.
        is_output: Whether a folder is the output of a run.
    """
    found = Found()
    above = {os.path.realpath(each) for each in (root, *root.absolute().resolve().parents)}
    visited: set[str] = set()
    waiting: list[tuple[Path, Parts]] = []  # folders behind links come last
    todo: list[tuple[Path, Parts]] = [(root, ())]
    told = time.monotonic()
    while todo or waiting:
        if time.monotonic() - told >= TELL_EVERY_S:
            warnings.warn(
                f"still searching {root}: {len(found.files):,} files to read in "
                f"{len(found.folders):,} folders so far; Ctrl-C stops",
                UserNotice,
                stacklevel=2,
            )
            told = time.monotonic()
        folder, parts = todo.pop() if todo else waiting.pop(0)
        try:
            real = os.path.realpath(folder)
        except OSError as error:  # a link that vanishes while it is read
            found.left_out.append((_denied(error), (*parts, "")))
            continue
        if parts and (real in above or real in visited):
            found.left_out.append((BACK if real in above else TWICE, (*parts, "")))
            continue
        if parts and is_output(folder):
            found.left_out.append((OUTPUT, (*parts, "")))
            continue
        visited.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            found.left_out.append((_denied(error), (*parts, "")))
            continue
        found.folders.add(parts)
        for entry in entries:
            name = entry.name
            below = (*parts, name)
            try:
                status = entry.stat()
            except OSError as error:
                if name[0] != ".":
                    is_file = _EXTENSION.search(name) is not None
                    found.left_out.append((_denied(error), below if is_file else (*below, "")))
                continue
            if stat.S_ISDIR(status.st_mode):
                if name[0] == "." or name in SYSTEM_FOLDERS:
                    found.left_out.append((HIDDEN, (*below, "")))
                else:
                    (waiting if entry.is_symlink() else todo).append((folder / name, below))
            elif name[0] == ".":
                if why_not(name, io.BytesIO) is None:
                    found.left_out.append((HIDDEN, below))
            elif reason := _why_not(entry, status, why_not):
                found.left_out.append((reason, below))
            else:
                found.files.append(FoundFile(folder / name, below, status.st_size))
    found.files.sort(key=lambda file: natural(file.parts))
    found.left_out.sort(key=lambda left: natural(left[1]))
    return found


def _why_not(
    entry: os.DirEntry[str],
    status: os.stat_result,
    why_not: WhyNot,
) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "that is a pipe, socket or device"
    if not os.access(entry.path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        return "without permission to read"
    try:
        reason = why_not(entry.name, lambda: io.FileIO(entry.path))
    except OSError as error:
        return _denied(error)
    return "empty" if reason is None and status.st_size == 0 else reason


def _denied(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "without permission to read"
    if isinstance(error, FileNotFoundError):
        return "linked to nothing"
    return f"that cannot be opened ({error.strerror})"


def natural(parts: Parts) -> list[tuple[list[tuple[int, str]], str]]:
    """Natural sort key of a path: `2.png` before `10.png`."""
    return [(_natural(part), part) for part in parts]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(number or -1), text) for number, text in re.findall(r"(\d+)|(\D+)", name)]
