"""Checks of a session's inputs, and random inputs to time it on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.errors import EngineError


def check_inputs(
    expected: Mapping[str, tuple[int, ...]],
    types: Mapping[str, np.dtype[Any]],
    inputs: Mapping[str, NDArray[Any]],
) -> None:
    """Compare inputs with the shapes and types (both by name) that an engine expects.

    Raises:
        EngineError: If an input is missing, unknown or of another shape or type.
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

    for name, dtype in types.items():
        if inputs[name].dtype != dtype:
            raise EngineError(
                f"input {name!r} must be of type {dtype}", str(inputs[name].dtype), "Cast it."
            )


def draw_inputs(
    shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, np.dtype[Any]]
) -> dict[str, NDArray[Any]]:
    """Draw the inputs to time engines on, always the same: normal, or 0 and 1 for integers."""
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal(shape).astype(types[name])
        if np.issubdtype(types[name], np.floating)
        else random.integers(0, 2, shape).astype(types[name])
        for name, shape in shapes.items()
    }
