"""File locks between processes."""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from devices.errors import FileError, UserNotice
from devices.files import refuse_no_folder

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_held: set[IO[bytes]] = set()


def _let_go() -> None:
    """Release the locks in a forked process (a data loader, say): it may outlive its parent."""
    for file in _held:
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def locked(path: Path, *, protects: Path | None = None, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock until the block or the process ends.

    Windows, and file systems without locks (some network drives, FUSE), give no protection; of the
    latter a `UserNotice` tells.

    Args:
        path: The lock file; created with its folder if missing.
        protects: The path that the error names; `path` if None.
        wait: Wait for the holder instead of raising.

    Raises:
        FileError: Another process holds the lock, or the file cannot be created.
    """
    protects = protects or path
    refuse_no_folder(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise FileError(
            f"a writable folder at {protects.absolute()}",
            error.strerror or str(error),
            "Choose another folder: output_dir=PATH.",
        ) from error
    with file:
        _lock(file, protects, wait)
        _held.add(file)
        try:
            yield
        finally:
            _held.discard(file)


def _lock(file: IO[bytes], protects: Path, wait: bool) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise FileError(
            f"to be the only process that writes to {protects.absolute()}",
            "another process is writing there",
            "Wait for it, or choose another output_dir.",
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise FileError(
                f"to lock {protects.absolute()} against other writers",
                error.strerror or str(error),
                "Check the disk, or choose another output_dir.",
            ) from error
        warnings.warn(
            f"{protects.absolute()}: its file system has no file locks ({error.strerror}), so two "
            "commands that write there at once would spoil it: run one at a time, or choose an "
            "output_dir on a local disk",
            UserNotice,
            stacklevel=4,
        )
