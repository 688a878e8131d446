"""The figures of a latency table as a CSV file beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from devices.files import write_bytes
from profilers import LatencyTable, table_csv


def write_csv(table: LatencyTable, predicted_ms: Mapping[str, float] | None = None) -> Path:
    """Write a table's figures beside it; see `profilers.table_csv`.

    Args:
        table: The table.
        predicted_ms: Predicted medians of networks, by key.

    Raises:
        StageError: The file cannot be written.
    """
    ending = "csv" if predicted_ms is not None else "table.csv"
    path = table.path.with_name(f"{table.path.name.removesuffix('.jsonl')}.{ending}")
    write_bytes(path, table_csv(table, predicted_ms).encode())
    return path
