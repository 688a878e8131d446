"""A session that loads its engine anew every few rounds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from devices.runtimes.protocol import Runtime

ROUNDS_PER_LOAD = 12
"""Rounds after which an engine is loaded anew."""


class ReloadingSession:
    """Times an engine over several loads, each in other memory.

    Where its memory lies changes the latency of a small block or network by 1 to 2 %, for as long
    as it stays loaded (`benchmarks/several_loads.py`). More runs of one load do not average that
    out; several loads do.

    Args:
        runtime: Loads the engine.
        path: The engine.

    Raises:
        EngineError: If the engine cannot be loaded.
    """

    def __init__(self, runtime: Runtime, path: Path) -> None:
        self._runtime = runtime
        self._path = path
        self._session = runtime.load(path)
        self._rounds = 0

    @property
    def workers(self) -> tuple[int, ...] | None:
        """See `Session.workers`; of the engine as it is loaded now."""
        return self._session.workers

    def timings_ms(self) -> Iterator[float]:
        """Times one run after the other; see `Session.timings_ms`. Each call is a round.

        Raises:
            EngineError: If the engine cannot be loaded again, or a run fails.
        """
        if self._rounds and self._rounds % ROUNDS_PER_LOAD == 0:
            self._load_again()
        self._rounds += 1
        return self._session.timings_ms()

    def _load_again(self) -> None:
        former = self._session
        # The former one is closed afterwards: else the new one would get the same memory.
        with contextlib.closing(former):
            self._session = self._runtime.load(self._path)
        self._session.time_ms(1)  # a first run allocates

    def close(self) -> None:
        """Release all resources. Closing again does nothing."""
        self._session.close()
