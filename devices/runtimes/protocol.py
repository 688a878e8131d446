"""The three roles around a runtime: compiling a model, loading it, running it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray


class EngineBuilder(Protocol):
    """Compiles ONNX files to engines of one kind."""

    @property
    def suffix(self) -> str:
        """Suffix of the engines' file names, with its dot."""

    def build(self, onnx_path: Path, engine_path: Path) -> None:
        """Compile a model. The engine appears whole under its name, or not at all.

        Args:
            onnx_path: The model; all shapes fixed.
            engine_path: Where the engine goes; its folder exists.

        Raises:
            CompileError: If the model cannot be compiled or the engine cannot be written.
        """


class Session(Protocol):
    """A loaded engine."""

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs, by name."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once.

        Args:
            inputs: One array for each of `inputs`, with its shape and the engine's type.

        Returns:
            The outputs, by name.

        Raises:
            EngineError: If the inputs do not fit, the run fails or the session is closed.
        """

    def time_ms(self, runs: int) -> list[float]:
        """Time runs one by one, on inputs that were drawn once when the session was made.

        The inputs are in the caches, as if they had just been computed.

        Args:
            runs: How many.

        Returns:
            The duration of each, in milliseconds.

        Raises:
            EngineError: If a run fails or the session is closed.
        """

    def close(self) -> None:
        """Give back what the session holds. Closing again does nothing."""


class Runtime(Protocol):
    """Loads engines."""

    @property
    def name(self) -> str:
        """Name of the runtime."""

    @property
    def version(self) -> str:
        """Version of the library behind it."""

    @property
    def settings(self) -> dict[str, Any]:
        """How it runs engines, as plain JSON values by name: what a latency depends on."""

    def load(self, path: Path) -> Session:
        """Load an engine.

        Args:
            path: The engine's file.

        Raises:
            EngineError: If it is missing, damaged or for another runtime.
        """
