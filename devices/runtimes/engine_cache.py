"""Cache of the engines that were built on this machine."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

from devices.errors import FileError
from devices.files import replacing


class EngineCache:
    """Engines by key; file names hold a digest, so that incomplete files are never loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> bytes | None:
        """The engine of a key; None if it is missing or damaged."""
        for path in self._files(key):
            with contextlib.suppress(OSError):
                plan = path.read_bytes()
                if path == self._path(key, plan):
                    return plan
        return None

    def build(self, key: str, build: Callable[[Path], None]) -> bytes:
        """Build the engine of a key into the path that `build` gets, replacing any present one.

        Raises:
            CompileError: If it cannot be built.
            FileError: If the folder cannot be written.
        """
        try:
            for path in self._files(key):
                path.unlink(missing_ok=True)
            with replacing(self.folder / key, shared=True) as temporary:
                build(temporary)
                plan = temporary.read_bytes()
            (self.folder / key).replace(self._path(key, plan))
        except (OSError, FileError) as error:
            raise FileError(
                f"to keep engines in {self.folder}",
                error.found if isinstance(error, FileError) else error.strerror or str(error),
                "Free space there, or let EDGESEARCH_CACHE name another folder.",
            ) from error
        return plan

    def _files(self, key: str) -> list[Path]:
        return sorted(self.folder.glob(f"{key}-*.engine"))

    def _path(self, key: str, plan: bytes) -> Path:
        return self.folder / f"{key}-{hashlib.sha256(plan).hexdigest()[:16]}.engine"
