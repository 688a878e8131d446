"""What is said when no architecture keeps the budgets: what can be reached, and what binds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edgesearch.errors import InfeasibleError
from edgesearch.search.settings import Range
from edgesearch.space import SearchSpace


def infeasible(
    space: SearchSpace,
    costs: Mapping[str, np.ndarray],
    ranges: Mapping[str, Range],
    runnable: np.ndarray,
    notes: Mapping[str, str],
) -> InfeasibleError:
    """The error that says how far off the nearest architectures are.

    Args:
        space: The search space.
        costs: (size,) each, of what is bounded.
        ranges: The bounds, by the same names.
        runnable: (size,) which architectures can run on all devices.
        notes: What to say beside a bound, by the same names.
    """
    wanted = ", ".join(
        _condition(name, bound) + (f" ({notes[name]})" if name in notes else "")
        for name, bound in ranges.items()
    )
    found = "the device can run none of them"
    if runnable.any():
        found = _nearest(space, costs, ranges, runnable)
        missing = space.size - int(runnable.sum())
        if missing:
            found += f"; {missing:,} of {space.size:,} cannot run on the device"
    return InfeasibleError(
        f"an architecture of {space.name!r} with {wanted or 'a finite latency'}",
        found,
        "Set search.budgets to what can be reached, or choose another space.",
    )


def _condition(name: str, bound: Range) -> str:
    if bound.min is None:
        return f"{name} ≤ {number(bound.ends[1])}"
    if bound.max is None:
        return f"{name} ≥ {number(bound.min)}"
    return f"{number(bound.min)} ≤ {name} ≤ {number(bound.max)}"


def _nearest(
    space: SearchSpace,
    costs: Mapping[str, np.ndarray],
    ranges: Mapping[str, Range],
    runnable: np.ndarray,
) -> str:
    """How far off the nearest architecture is that the devices can run."""
    over = {
        name: np.where(runnable, _over(costs[name], bound), math.inf)
        for name, bound in ranges.items()
    }
    alone = [
        _out_of_reach(name, costs[name], over[name], bound, runnable)
        for name, bound in ranges.items()
        if over[name].min() > 1
    ]
    if alone:
        return "; ".join(alone)
    nearest = int(np.argmin(np.max(list(over.values()), axis=0)))
    reached = ", ".join(f"{name} {number(float(costs[name][nearest]))}" for name in ranges)
    text = (
        f"each can be met alone, but not together; nearest to all: {reached} "
        f"({space.architecture(nearest)})"
    )
    binding = [found for name in ranges if (found := _with_the_others(name, costs, over))]
    return "; ".join([text, *binding])


def _out_of_reach(
    name: str, cost: np.ndarray, over: np.ndarray, bound: Range, runnable: np.ndarray
) -> str:
    low, high = bound.ends
    values = cost[runnable]
    if values.min() > high:
        return (
            f"{name} {number(high)}, but the least that this space reaches is "
            f"{number(float(values.min()))}"
        )
    if values.max() < low:
        return (
            f"{name} {number(low)}, but the most that this space reaches is "
            f"{number(float(values.max()))}"
        )
    return (
        f"{name} from {number(low)} to {number(high)}, but the nearest that this space reaches is "
        f"{number(float(cost[int(np.argmin(over))]))}"
    )


def _with_the_others(
    name: str, costs: Mapping[str, np.ndarray], over: Mapping[str, np.ndarray]
) -> str:
    """What a budget comes to where all others are kept; nothing if they cannot be."""
    others = np.max([over[other] for other in over if other != name], axis=0) <= 1
    if not others.any():
        return ""
    nearest = int(np.argmin(np.where(others, over[name], math.inf)))
    return f"{name} binds: with the others met it is {number(float(costs[name][nearest]))} at best"


def _over(cost: np.ndarray, bound: Range) -> np.ndarray:
    """By which factor a cost is out of a range; at most 1 within."""
    low, high = bound.ends
    over = np.zeros_like(cost)
    if math.isfinite(high):
        over = cost / high
    if math.isfinite(low):
        over = np.maximum(over, low / np.maximum(cost, 1e-12))
    return over


def number(value: float) -> str:
    """A figure for people: 12,300,000 or 1.234."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
