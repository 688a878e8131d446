"""The section `search.budgets`: as arguments of the workflow, and in words."""

from __future__ import annotations

from typing import Any

from edgesearch import stages as workflow
from edgesearch.config import BudgetsSection


def budget_arguments(section: BudgetsSection) -> dict[str, Any]:
    """The arguments `budgets`, `latency_of_largest` and `further_devices` of `workflow.search`."""
    names = ("latency_p95_ms", "params", "macs", "activation_bytes", "weight_bytes")
    return {
        "budgets": workflow.Budgets(
            latency_ms=_bound(section.latency_ms),
            **{name: _bound(getattr(section, name)) for name in names},
            devices={
                name: workflow.LatencyBudgets(
                    _bound(device.latency_ms), _bound(device.latency_p95_ms)
                )
                for name, device in section.devices.items()
            },
        ),
        "latency_of_largest": _bound(section.latency_of_largest),
        "further_devices": [device.build(name) for name, device in section.devices.items()],
    }


def _bound(value: Any) -> Any:
    """A number, a range or several numbers, as the search knows them."""
    if isinstance(value, list):
        return tuple(value)
    if value is None or isinstance(value, float | int):
        return value
    return workflow.Range(value.min, value.max)


def describe_bound(name: str, bound: Any) -> str:
    """A bound on a latency in ms, as pareto.json has it: "latency ≤ 1.000 ms"."""
    if isinstance(bound, list):
        return f"{name} ≤ {' and '.join(f'{most:.3f}' for most in bound)} ms, each by itself"
    if not isinstance(bound, dict):
        return f"{name} ≤ {bound:.3f} ms"
    least, most = bound["min"], bound["max"]
    low = "" if least is None else f"{least:.3f} ms ≤ "
    return f"{low}{name}" + ("" if most is None else f" ≤ {most:.3f} ms")
