"""The error when no architecture meets the budgets: nearest costs and binding budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edgesearch.errors import InfeasibleError
from edgesearch.search.costs import Rows
from edgesearch.search.settings import Range
from edgesearch.space.count import Count


def infeasible(
    rows: Rows, ranges: Mapping[str, Range], notes: Mapping[str, str], cannot_run: Count
) -> InfeasibleError:
    """Make the error; describes how far off the nearest architectures are.

    `rows` are the known architectures; `notes` are texts to add to a bound, by its name.
    """
    wanted = ", ".join(
        _condition(name, bound) + (f" ({notes[name]})" if name in notes else "")
        for name, bound in ranges.items()
    )
    found = "the device can run none of them"
    if rows.runnable.any():
        found = _nearest(rows, ranges)
        if cannot_run.number:
            found += f"; {cannot_run} cannot run on the device"
    return InfeasibleError(
        f"an architecture of {rows.costs.space.name!r} with {wanted or 'a finite latency'}",
        found,
        "Set search.budgets to reachable values, or choose another space.",
    )


def _condition(name: str, bound: Range) -> str:
    if bound.min is None:
        return f"{name} ≤ {number(bound.ends[1])}"
    if bound.max is None:
        return f"{name} ≥ {number(bound.min)}"
    return f"{number(bound.min)} ≤ {name} ≤ {number(bound.max)}"


def _nearest(rows: Rows, ranges: Mapping[str, Range]) -> str:
    """Describe the nearest runnable architecture."""
    over = rows.over(ranges)
    alone = [
        _out_of_reach(name, rows, bound) for name, bound in ranges.items() if over[name].min() > 1
    ]
    if alone:
        return "; ".join(alone)
    nearest = int(np.argmin(np.max(list(over.values()), axis=0)))
    reached = ", ".join(f"{name} {number(float(rows[name][nearest]))}" for name in ranges)
    text = (
        f"each budget can be met alone, but not all together; nearest: {reached} "
        f"({rows.architecture(nearest)})"
    )
    binding = filter(None, (_with_the_others(*item, rows, over) for item in ranges.items()))
    return "; ".join([text, *binding])


def _out_of_reach(name: str, rows: Rows, bound: Range) -> str:
    low, high = bound.ends
    values = rows[name][rows.runnable]
    if values.min() > high:
        wanted, kind, found = number(high), "minimum", values.min()
    elif values.max() < low:
        wanted, kind, found = number(low), "maximum", values.max()
    else:
        wanted, kind = f"from {number(low)} to {number(high)}", "nearest value"
        found = rows[name][int(np.argmin(rows.over({name: bound})[name]))]
    return f"{name} {wanted}, but the {kind} of this space is {attainable(float(found), bound)}"


def _with_the_others(name: str, bound: Range, rows: Rows, over: Mapping[str, np.ndarray]) -> str:
    """The best cost if all other budgets are met; empty if they cannot be."""
    others = np.max([over[other] for other in over if other != name], axis=0) <= 1
    if not others.any():
        return ""
    nearest = int(np.argmin(np.where(others, over[name], math.inf)))
    best = attainable(float(rows[name][nearest]), bound)
    return f"{name} binds: at best {best} if the others are met"


def attainable(value: float, bound: Range) -> str:
    """Format a cost that breaks a bound; a bound of just this text is one that the cost keeps."""
    low, high = bound.ends
    text = number(value)
    shown = float(text.replace(",", ""))
    step = 1.0 if abs(value) >= 1000 else 10.0 ** (math.floor(math.log10(abs(value) or 1)) - 3)
    if shown < value > high:
        return number(value + step)
    return number(value - step) if shown > value < low else text


def number(value: float) -> str:
    """Format a number for messages: 12,300,000 or 1.234."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
