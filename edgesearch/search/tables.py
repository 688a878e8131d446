"""Latency tables of a search, and the feasible set computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from devices import DeviceSpec
from edgesearch.errors import InfeasibleError, StageError
from edgesearch.events import Report, silent
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.load_table import corrected_model, load_table
from edgesearch.latency.table import steadiness_of, table_digest
from edgesearch.search.costs import Costs, DeviceLatencies
from edgesearch.search.feasible import FeasibleSet, find_feasible
from edgesearch.search.settings import Budgets
from edgesearch.space import SearchSpace
from edgesearch.tasks.head_costs import TaskHead
from profilers import LatencyTable


@dataclass(frozen=True)
class Tables:
    """The latency tables of a search, checked against space and devices, with their digests.

    Attributes:
        head: That of the whole models whose latencies are bounded; None for backbones.
    """

    space: SearchSpace
    device: DeviceSpec
    table: LatencyTable
    further: dict[str, LatencyTable]
    digests: dict[str, str]
    head: TaskHead | None = None

    @classmethod
    def load(
        cls,
        table_path: Callable[[DeviceSpec], Path],
        space: SearchSpace,
        device: DeviceSpec,
        further: Iterable[DeviceSpec],
        accept: Collection[str],
        report: Report,
        head: TaskHead | None = None,
    ) -> Tables:
        """Read the tables.

        Raises:
            StageError: A table is missing or of another space; names the command that makes it.
            TableMismatchError: A table is of another device.
        """
        table = load_table(table_path(device), space, device, accept, "search", report, head=head)
        tables = load_further(table_path, space, further, accept, report, head)
        paths = [table_path(spec) for spec in (device, *further)]
        digests = {f"the latency table {path.name}": table_digest(path, head) for path in paths}
        return cls(space, device, table, tables, digests, head)

    @property
    def doubts(self) -> dict[str, str]:
        """Why predictions for a device cannot be trusted, by its name."""
        tables = {self.device.name: self.table, **self.further}
        found = {name: steadiness_of(table) for name, table in tables.items()}
        return {name: each.of_table for name, each in found.items() if not each.settled}

    def feasible(self, budgets: Budgets) -> FeasibleSet:
        """The feasible set.

        Raises:
            InfeasibleError: It is empty.
        """
        model = corrected_model(self.space, self.table, self.head)
        notes = {}
        if budgets.latency_of_largest is not None:
            largest_ms = _largest_ms(model)
            budgets = budgets.with_largest(largest_ms)
            notes["latency_ms"] = f"search.budgets.latency_of_largest × {largest_ms:.4g} ms"
        models = {
            name: corrected_model(self.space, each, self.head)
            for name, each in self.further.items()
        }
        own, *further = (
            DeviceLatencies(each.predict_all, each.p95_ratio, each.about)
            for each in (model, *models.values())
        )
        costs = Costs(self.space, self.device, own, dict(zip(models, further, strict=True)))
        return find_feasible(costs, budgets, notes)


def load_further(
    table_path: Callable[[DeviceSpec], Path],
    space: SearchSpace,
    further: Iterable[DeviceSpec],
    accept: Collection[str],
    report: Report = silent,
    head: TaskHead | None = None,
) -> dict[str, LatencyTable]:
    """The tables of further devices by name; see `Tables.load`."""
    tables = {}
    for other in further:
        try:
            tables[other.name] = load_table(
                table_path(other), space, other, accept, "search", report, elsewhere=True, head=head
            )
        except StageError as error:
            raise StageError(
                f"{error.required} (search.budgets.devices.{other.name})",
                error.found,
                f"Run `edgesearch profile` with the same configuration and "
                f"{_overrides(other)} first, and device.host=NAME if it is another machine.",
            ) from error
    return tables


def _largest_ms(model: LatencyModel) -> float:
    largest_ms = model.predict(model.space.largest).median_ms
    if not math.isfinite(largest_ms):
        raise InfeasibleError(
            "a largest network that the device can run, for search.budgets.latency_of_largest",
            f"{model.space.largest}, which has blocks that the device cannot run",
            "Set search.budgets.latency_ms instead, or choose a smaller space.",
        )
    return largest_ms


def _overrides(device: DeviceSpec) -> str:
    """Overrides that select this device in a configuration."""
    fields = device.measured_fields.items()
    return " ".join(f"device.{name}={value}" for name, value in fields if value is not None)
