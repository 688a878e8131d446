"""What the fits of latencies share: the form is selected by leave-one-out cross-validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

Form = tuple[int, ...]
"""Columns that a fit uses; the others have no coefficient of their own."""
Solve = Callable[[np.ndarray, np.ndarray, Form], np.ndarray]
"""(N, C) columns, (N,) latencies and a form: the (C,) coefficients."""


def best_form(
    columns: np.ndarray,
    wanted_ms: np.ndarray,
    forms: Iterable[Form],
    solve: Solve,
    is_sound: Callable[[np.ndarray, np.ndarray], bool],
) -> tuple[np.ndarray | None, float]:
    """The coefficients of the sound form with the smallest leave-one-out error, and that error.

    A form has fewer coefficients than there are networks, unless there is only one.

    Args:
        columns: What latencies are fitted to (N, C).
        wanted_ms: Measured latencies (N,).
        forms: The forms to choose from; of equal ones the first is taken.
        solve: Fits one form.
        is_sound: Whether coefficients (C,) make sense on all columns.

    Returns:
        None and infinity if no form is sound.
    """
    count = len(columns)
    best, best_error = None, math.inf
    for form in (form for form in forms if len(form) < max(2, count)):
        coefficients = solve(columns, wanted_ms, form)
        if is_sound(coefficients, columns):
            error = _left_out_error(columns, wanted_ms, form, solve)
            if error < best_error:
                best, best_error = coefficients, error
    return best, best_error


def _left_out_error(columns: np.ndarray, wanted_ms: np.ndarray, form: Form, solve: Solve) -> float:
    """Mean absolute relative error in leave-one-out cross-validation; of a single one, its own."""
    errors = []
    for index in range(len(columns)):
        others = np.arange(len(columns)) != index if len(columns) > 1 else slice(None)
        coefficients = solve(columns[others], wanted_ms[others], form)
        errors.append(abs(columns[index] @ coefficients / wanted_ms[index] - 1))
    return float(np.mean(errors))


def finite_fields(names: Iterable[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a fit, whose numbers are finite; `loo_mape` may be None.

    Raises:
        ValueError: A value is of the wrong kind.
        KeyError: A value is missing.
    """
    found = {name: values[name] for name in names}
    for name, value in found.items():
        if value is None and name == "loo_mape":
            continue
        is_right = isinstance(value, bool) == (name == "cold")
        if not (is_right and isinstance(value, (int, float)) and math.isfinite(value)):
            raise ValueError(f"{name} {value!r}")
    return found
