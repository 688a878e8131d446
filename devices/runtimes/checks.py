"""What every runtime and builder does alike: checking inputs, writing engines whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from devices.errors import CompileError, EngineError


def check_inputs(
    expected: Mapping[str, tuple[int, ...]], inputs: Mapping[str, NDArray[Any]]
) -> None:
    """Compare names and shapes of inputs with what an engine wants.

    Args:
        expected: Shapes by name.
        inputs: Arrays by name.

    Raises:
        EngineError: If an input is missing, unknown or of another shape.
    """
    for name, shape in expected.items():
        if name not in inputs:
            raise EngineError(
                f"the engine needs input {name!r} of shape {shape}",
                f"inputs {sorted(inputs)}",
                f"Pass {name!r}.",
            )
        if inputs[name].shape != shape:
            raise EngineError(
                f"input {name!r} must have shape {shape}",
                f"shape {inputs[name].shape}",
                "Reshape it, or export the model for that shape.",
            )
    unknown = sorted(set(inputs) - set(expected))
    if unknown:
        raise EngineError(
            f"the engine has the inputs {sorted(expected)}",
            f"an input {unknown[0]!r} as well",
            f"Leave {unknown[0]!r} out.",
        )


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary file that takes the name `path` if the block succeeds.

    Args:
        path: The final name.

    Yields:
        A name in the same folder; what is there is removed if the block fails.

    Raises:
        CompileError: If the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise CompileError(
            f"to write the engine {path}",
            error.strerror or str(error),
            "Check that the folder exists, can be written and has space.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
