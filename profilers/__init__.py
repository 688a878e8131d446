"""How compiled models are timed, and what is kept of it."""

from profilers.bench import Ratio, Timing, bench_engines
from profilers.boards_meter import open_meter
from profilers.build_table import build_table
from profilers.errors import MissingKeyError, ProfilerError, TableError, TableMismatchError
from profilers.latency_table import LatencyTable
from profilers.measure import (
    KeyHistory,
    MeasureConfig,
    Measurement,
    RoundSamples,
    measure_rounds,
)
from profilers.merge_tables import MergeResult, merge_tables
from profilers.meter import LocalMeter, Meter
from profilers.steadiness import Steadiness
from profilers.table_csv import table_csv
from profilers.table_identity import Mismatch, refuse_other_runs
from profilers.table_words import describe_table
from profilers.usage import Usage, usage_of
from profilers.workload import Workload

__all__ = [
    "KeyHistory",
    "LatencyTable",
    "LocalMeter",
    "MeasureConfig",
    "Measurement",
    "MergeResult",
    "Meter",
    "Mismatch",
    "MissingKeyError",
    "ProfilerError",
    "Ratio",
    "RoundSamples",
    "Steadiness",
    "TableError",
    "TableMismatchError",
    "Timing",
    "Usage",
    "Workload",
    "bench_engines",
    "build_table",
    "describe_table",
    "measure_rounds",
    "merge_tables",
    "open_meter",
    "refuse_other_runs",
    "table_csv",
    "usage_of",
]
