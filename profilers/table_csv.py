"""A latency table as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from profilers.latency_table import LatencyTable
from profilers.workload import OWN_KEYS

_MACHINE_FIELDS = ("runtime_version", "chip", "gpu", "driver", "power_mode")
COLUMNS = (
    *("device", "runtime", "provider", "precision", "batch", "threads"),
    *_MACHINE_FIELDS,
    *("kind", "key", "rounds", "rounds_made"),
    *("low_quantile_ms", "cold_ms", "median_ms", "p95_ms", "median_low_ms", "median_high_ms"),
    *("predicted_ms", "error"),
)
"""The first eleven identify the table, so that one file can hold rows of several tables.

`kind` is that of the workload, such as `block` or `network`, or `overhead` (an empty run) or
`reference` (the workload that links sessions); `rounds` counts undisturbed rounds, `rounds_made`
all of them; `low_quantile_ms` is the undisturbed latency without the fixed cost of a run, which
adds up over blocks; `cold_ms` the same with cold caches and the fixed cost; `median_ms` and
`p95_ms` are of whole runs; `median_low_ms` and `median_high_ms` the 95 % confidence interval of the
median; `predicted_ms` the predicted median of a network; `error` why the key could not run. Unknown
values are empty.
"""


def table_csv(table: LatencyTable, predicted_ms: Mapping[str, float] | None = None) -> str:
    """The columns `COLUMNS` of a table as CSV: a header, then a line for each key, kind by kind.

    Times are in milliseconds, to the nanosecond. `predicted_ms` are medians of networks, by key.

    Raises:
        TableError: A session shares no key with the others.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    machine = {field: getattr(table.fingerprint, field) for field in _MACHINE_FIELDS}
    identity = {**table.spec.measured_fields, **machine}
    identity = {"device": identity.pop("name"), **identity}
    kinds, errors = table.kinds(), table.errors
    order = [*sorted({*kinds.values()} - {*OWN_KEYS}), *OWN_KEYS]
    for key, kind in sorted(kinds.items(), key=lambda item: order.index(item[1])):
        predicted = _rounded((predicted_ms or {}).get(key))
        about = {"kind": kind, "key": key, "predicted_ms": predicted, "error": errors.get(key)}
        writer.writerow({**identity, **about, **_figures(table, key)})
    return text.getvalue()


def _figures(table: LatencyTable, key: str) -> dict[str, Any]:
    rounds = {"rounds": table.rounds(key), "rounds_made": table.history(key).attempts}
    if not rounds["rounds"]:
        return rounds
    low_ms, high_ms = table.median_interval_ms(key)
    figures_ms = {
        "low_quantile_ms": table.low_quantile_ms(key),
        "cold_ms": table.cold_quantile_ms(key),
        "median_ms": table.median_ms(key),
        "p95_ms": table.percentile_ms(key, 95),
        "median_low_ms": low_ms,
        "median_high_ms": high_ms,
    }
    return {**rounds, **{name: _rounded(value) for name, value in figures_ms.items()}}


def _rounded(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 6)
