"""A fake runtime that replays recorded samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.errors import EngineError
from devices.runtimes.checks import check_inputs
from devices.runtimes.protocol import Session


class ReplayRuntime:
    """Replays recorded samples, for tests.

    Args:
        samples_ms: Recorded durations by the stem of the engine's file name. A session cycles
            through them.
    """

    name = "replay"
    version = "1"

    def __init__(self, samples_ms: Mapping[str, Sequence[float]]) -> None:
        self.settings: dict[str, Any] = {}
        self._samples_ms = samples_ms

    def load(self, path: Path) -> Session:
        """Start a recording without reading the file; see `Runtime.load`."""
        if not self._samples_ms.get(path.stem):
            raise EngineError(
                f"recorded samples of {path.stem!r}",
                f"samples of {', '.join(self._samples_ms) or 'nothing'}",
                "Record it first.",
            )
        return _ReplaySession(self._samples_ms[path.stem])


class _ReplaySession(Session):
    def __init__(self, samples_ms: Sequence[float]) -> None:
        self.inputs: dict[str, tuple[int, ...]] = {"images": (1,)}
        self._samples_ms = itertools.cycle(samples_ms)
        self._closed = False

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self._check_open()
        check_inputs(self.inputs, {}, inputs)
        return {"features": np.zeros(1, np.float32)}

    def timings_ms(self) -> Iterator[float]:
        self._check_open()
        yield from self._samples_ms

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("an open session", "a closed one", "Load it again.")
