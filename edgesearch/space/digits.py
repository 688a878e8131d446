"""Operations on arrays of digits (n, d), each row an architecture of a space of any size."""

from __future__ import annotations

import numpy as np

from edgesearch.space.search_space import SearchSpace


def unique_rows(digits: np.ndarray, but: np.ndarray | None = None) -> np.ndarray:
    """Distinct rows of (n, d) in index order, without those in `but` (m, d)."""
    names, first = np.unique(_names(digits), return_index=True)
    if but is not None:
        first = first[~np.isin(names, _names(but))]
    return digits[first]


def _names(digits: np.ndarray) -> np.ndarray:
    """(n,) byte strings that sort like the rows."""
    count, length = digits.shape
    return np.ascontiguousarray(digits, ">u2").view(f"S{2 * length}").reshape(count)


def moved(
    space: SearchSpace, digits: np.ndarray, rng: np.random.Generator, changes: int = 1
) -> np.ndarray:
    """Redraw `changes` choices of each architecture (n, d); a draw may repeat the old value."""
    steps, rows = digits.copy(), np.arange(len(digits))
    lengths = np.array([len(values) for values in space.choices.values()])
    for _ in range(changes):
        axes = rng.integers(len(lengths), size=len(digits))
        steps[rows, axes] = rng.integers(lengths[axes])
    return steps


def spread_digits(space: SearchSpace, count: int, rng: np.random.Generator) -> np.ndarray:
    """Digits (count, d) of architectures spread from the smallest to the largest.

    With many choices, uniform samples all have about the same size. Here each architecture draws a
    level, and its choices are binomial around this level.
    """
    lengths = np.array([len(values) for values in space.choices.values()])
    return rng.binomial(lengths - 1, rng.random((count, 1)))
