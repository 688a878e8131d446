"""Arrays of digits (n, d): architectures of a space of any size, many at once."""

from __future__ import annotations

import numpy as np

from edgesearch.space.search_space import SearchSpace


def unique_rows(digits: np.ndarray, but: np.ndarray | None = None) -> np.ndarray:
    """Each once, in the order of the numbering.

    Args:
        digits: (n, d).
        but: (m, d) that are left out.
    """
    names, first = np.unique(_names(digits), return_index=True)
    if but is not None:
        first = first[~np.isin(names, _names(but))]
    return digits[first]


def _names(digits: np.ndarray) -> np.ndarray:
    """(n,) texts of bytes, which sort as the rows do."""
    count, length = digits.shape
    return np.ascontiguousarray(digits, ">u2").view(f"S{2 * length}").reshape(count)


def moved(
    space: SearchSpace, digits: np.ndarray, rng: np.random.Generator, changes: int = 1
) -> np.ndarray:
    """Each architecture with some choices drawn anew, which may fall on the same values.

    Args:
        space: The space.
        digits: (n, d).
        rng: Draws.
        changes: How many choices.
    """
    steps, rows = digits.copy(), np.arange(len(digits))
    lengths = np.array([len(values) for values in space.choices.values()])
    for _ in range(changes):
        axes = rng.integers(len(lengths), size=len(digits))
        steps[rows, axes] = rng.integers(lengths[axes])
    return steps


def spread_digits(space: SearchSpace, count: int, rng: np.random.Generator) -> np.ndarray:
    """Digits (count, d) of architectures from the smallest to the largest.

    Those that are drawn uniformly are all about as large if there are many choices. These have a
    level each, and their choices are drawn around it.
    """
    lengths = np.array([len(values) for values in space.choices.values()])
    return rng.binomial(lengths - 1, rng.random((count, 1)))
