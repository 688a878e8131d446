"""A teacher's embeddings, or maps, of crops of all training images, computed once and kept."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from devices.errors import FileError
from devices.files import write_json

FLUSH_S = 10.0
"""Seconds between flushes; a kill loses at most this much of the teacher's work."""
DTYPE = np.dtype(np.float16)


class TeacherCache:
    """Rows of embeddings (dim,) or of maps (dim, h, w), float16, in a growing file.

    Beside it, a JSON file says of which images and teacher they are; other rows are dropped.

    Args:
        folder: Receives teacher.json and teacher.f16.
        about: Plain values that decide the rows.
        rows: Number of rows when complete.
        dim: Length of an embedding.
        grid: (h, w) of maps; None for embeddings.
    """

    def __init__(
        self,
        folder: Path,
        about: dict[str, Any],
        rows: int,
        dim: int,
        grid: tuple[int, int] | None = None,
    ) -> None:
        self.path, self._about_path = folder / "teacher.f16", folder / "teacher.json"
        self.rows, self.dim, self.grid = rows, dim, grid
        self.kind = "embeddings" if grid is None else "maps"
        self._shape = (dim, *(grid or ()))
        form = {} if grid is None else {"grid": grid}
        self._about = json.loads(json.dumps({**about, "rows": rows, "dim": dim, **form}))
        self._opened: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:  # worker processes open the file themselves
        kept = None if isinstance(self._opened, np.memmap) else self._opened
        return {**vars(self), "_opened": kept}

    def __getitem__(self, row: int | np.ndarray) -> torch.Tensor:
        """Rows (…, dim) or (…, dim, h, w) float32 of a complete cache."""
        if self._opened is None:
            self._opened = np.memmap(self.path, DTYPE, "r", shape=(self.rows, *self._shape))
        return torch.from_numpy(self._opened[row].astype(np.float32))

    def pretend(self) -> None:
        """Give the same row for all if the cache is not complete, so that steps can be timed."""
        if self.done < self.rows:
            row = np.random.default_rng(0).standard_normal(self._shape).astype(DTYPE)
            self._opened = np.broadcast_to(row, (self.rows, *self._shape))

    @property
    def is_foreign(self) -> bool:
        """Whether the folder holds rows of other images or of another teacher."""
        return self.path.exists() and self._described() != self._about

    @property
    def done(self) -> int:
        """Number of finished rows."""
        if not self.path.exists() or self.is_foreign:
            return 0
        return min(self.rows, self.path.stat().st_size // self._row_bytes)

    @property
    def bytes_left(self) -> int:
        """Room that the missing rows take."""
        return (self.rows - self.done) * self._row_bytes

    def already(self, each: int = 1) -> str:
        """What `fill` finds in the folder, in words; empty if there is nothing.

        Args:
            each: Rows of each image.
        """
        if self.is_foreign:
            of_others = "of other images, of another teacher or of another form"
            return f"{self.kind} {of_others} in {self.path} are replaced"
        if not self.done:
            return ""
        of_all = f"{self.done // each:,} of {self.rows // each:,}"
        return f"the teacher's {self.kind} of {of_all} images are kept from before"

    def fill(
        self,
        embed: Callable[[range], torch.Tensor],
        at_once: int,
        after: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Compute the missing rows; continues where it was stopped.

        Args:
            embed: Embeddings (n, dim), or maps (n, dim, h, w), of a range of rows.
            at_once: Rows per call.
            after: Called with the number of finished rows after each call; may raise to stop.

        Raises:
            FileError: The file cannot be written; what is finished is kept.
        """
        done = self.done
        try:
            if done == 0:
                self.path.unlink(missing_ok=True)
                write_json(self._about_path, self._about)
            with self.path.open("r+b" if done else "wb") as file:
                file.truncate(done * self._row_bytes)
                file.seek(0, 2)
                flushed = time.monotonic()
                while done < self.rows:
                    rows = range(done, min(self.rows, done + at_once))
                    file.write(embed(rows).numpy().astype(DTYPE).tobytes())
                    done = rows.stop
                    if done == self.rows or time.monotonic() - flushed > FLUSH_S:
                        file.flush()
                        flushed = time.monotonic()
                    after(done)
        except OSError as error:
            raise FileError(
                f"room for the teacher's {self.rows:,} {self.kind} in {self.path} "
                f"({self.rows * self._row_bytes / 1e6:,.0f} MB)",
                str(error),
                f"Make room and run the same command again: finished {self.kind} are kept.",
            ) from error

    @property
    def _row_bytes(self) -> int:
        return math.prod(self._shape) * DTYPE.itemsize

    def _described(self) -> Any:
        try:
            return json.loads(self._about_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
