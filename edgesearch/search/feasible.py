"""From latency tables to what keeps the budgets."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from devices import DeviceSpec
from edgesearch.errors import InfeasibleError, StageError
from edgesearch.events import Report
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.table import current_correction, table_digest
from edgesearch.run.layout import Layout
from edgesearch.search.budgets import Budgets
from edgesearch.search.constraints import DeviceLatencies, FeasibleSet
from edgesearch.space import SearchSpace
from edgesearch.stages.profile import load_table
from profilers import LatencyTable

VALUE_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of a weight or activation in each precision of a device."""


@dataclass(frozen=True)
class Tables:
    """The latency tables of a search, checked to be of its space and devices.

    Attributes:
        space: The search space.
        device: The device that winners are measured on.
        table: Its table.
        further: Tables of further devices, which may be other machines and are only read.
        digests: By a name to show, what tells whether a table has been measured anew.
    """

    space: SearchSpace
    device: DeviceSpec
    table: LatencyTable
    further: dict[str, LatencyTable]
    digests: dict[str, str]

    @classmethod
    def load(
        cls,
        layout: Layout,
        space: SearchSpace,
        device: DeviceSpec,
        further: Sequence[DeviceSpec],
        accept: Collection[str],
        report: Report,
    ) -> Tables:
        """Read them.

        Raises:
            StageError: There is none, or it is of another space; says the command that makes it.
            TableMismatchError: It is of another device.
        """
        table = load_table(layout.table(device), space, device, accept, "search", report)
        tables = {}
        for other in further:
            try:
                tables[other.name] = load_table(
                    layout.table(other), space, other, accept, "search", report, elsewhere=True
                )
            except StageError as error:
                raise StageError(
                    f"{error.required} (search.budgets.devices.{other.name})",
                    error.found,
                    f"Run `edgesearch profile` with the same configuration and "
                    f"{_overrides(other)} first, and device.host=NAME if it is another machine.",
                ) from error
        paths = [layout.table(spec) for spec in (device, *further)]
        digests = {f"the latency table {path.name}": table_digest(path) for path in paths}
        return cls(space, device, table, tables, digests)

    def feasible(
        self, budgets: Budgets, latency_of_largest: float | tuple[float, ...] | None
    ) -> FeasibleSet:
        """What keeps the budgets, the latency given in ms or as a share of the largest's.

        Raises:
            InfeasibleError: Nothing does.
        """
        model = self._model(self.table)
        notes = {}
        if latency_of_largest is not None:
            largest_ms = _largest_ms(model)
            budgets = replace(budgets, latency_ms=_scaled(latency_of_largest, largest_ms))
            notes["latency_ms"] = (
                f"search.budgets.latency_of_largest is a share of {largest_ms:.4g} ms"
            )
        further = {}
        for name, table in self.further.items():
            other = self._model(table)
            further[name] = DeviceLatencies(other.predict_all(), other.correction.p95_ratio)
        return FeasibleSet(
            self.space,
            model.predict_all(),
            budgets,
            model.correction.p95_ratio,
            value_bytes=VALUE_BYTES[self.device.precision],
            batch=self.device.batch,
            devices=further,
            notes=notes,
        )

    def _model(self, table: LatencyTable) -> LatencyModel:
        return LatencyModel.from_table(self.space, table, current_correction(self.space, table))


def _largest_ms(model: LatencyModel) -> float:
    largest_ms = model.predict(model.space.largest).median_ms
    if not math.isfinite(largest_ms):
        raise InfeasibleError(
            "a largest network that the device can run, for search.budgets.latency_of_largest",
            f"{model.space.largest}, which has blocks that the device cannot run",
            "Set search.budgets.latency_ms instead, or choose a smaller space.",
        )
    return largest_ms


def _scaled(shares: float | tuple[float, ...], largest_ms: float) -> float | tuple[float, ...]:
    if isinstance(shares, tuple):
        return tuple(share * largest_ms for share in shares)
    return shares * largest_ms


def _overrides(device: DeviceSpec) -> str:
    """The keys that make a configuration one of this device."""
    fields = device.measured_fields.items()
    return " ".join(f"device.{name}={value}" for name, value in fields if value is not None)
