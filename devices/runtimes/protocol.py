"""Protocols of a runtime: compile a model, load it, run it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray


class EngineBuilder(Protocol):
    """Compiles ONNX files to engines of one kind."""

    suffix: str
    """File name suffix of the engines, with the dot."""

    def build(self, onnx_path: Path, engine_path: Path) -> None:
        """Compile a model. The engine is written completely or not at all.

        Args:
            onnx_path: The model; all shapes fixed.
            engine_path: The engine.

        Raises:
            CompileError: If the model cannot be compiled.
            FileError: If the engine cannot be written.
        """


class TimedSession(Protocol):
    """What measuring needs of a loaded engine."""

    @property
    def workers(self) -> tuple[int, ...] | None:
        """System's ids of the threads that compute a run beside the calling one; None on a GPU."""

    def timings_ms(self) -> Iterator[float]:
        """Time one run after the other; see `Session.timings_ms`."""

    def close(self) -> None:
        """Release all resources. Closing again does nothing."""


class Session(Protocol):
    """A loaded engine."""

    inputs: dict[str, tuple[int, ...]]
    """Input shapes by name."""
    workers: tuple[int, ...] | None = None
    """System's ids of the threads that compute a run beside the calling one; None if a GPU does."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once.

        Args:
            inputs: One array for each of `inputs`, with its shape and the engine's type.

        Returns:
            The outputs by name.

        Raises:
            EngineError: If the inputs do not fit, the run fails or the session is closed.
        """

    def timings_ms(self) -> Iterator[float]:
        """Time one run after the other, on inputs that were drawn once when the session was made.

        The inputs are in the caches at first, as if they had just been computed.

        Yields:
            The duration of a run, which begins when its duration is asked for.

        Raises:
            EngineError: If a run fails or the session is closed.
        """

    def time_ms(self, runs: int) -> list[float]:
        """Time some runs; see `timings_ms`."""
        return list(itertools.islice(self.timings_ms(), runs))

    def close(self) -> None:
        """Release all resources. Closing again does nothing."""


class Runtime(Protocol):
    """Loads engines.

    Attributes:
        name: Name of the runtime.
        version: Version of its library.
        settings: Settings that latencies depend on, as plain JSON values by name.
    """

    name: str
    version: str
    settings: dict[str, Any]

    def load(self, path: Path) -> Session:
        """Load an engine.

        Raises:
            EngineError: If the file is missing, damaged or for another runtime.
        """
