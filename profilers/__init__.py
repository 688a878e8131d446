"""How compiled models are timed, and what is kept of it."""

from profilers.build_table import build_table
from profilers.errors import MissingKeyError, ProfilerError, TableError, TableMismatchError
from profilers.latency_table import LatencyTable, NetworkMeasurement
from profilers.measure import MeasureConfig, RoundSamples, measure_rounds
from profilers.workload import Workload

__all__ = [
    "LatencyTable",
    "MeasureConfig",
    "MissingKeyError",
    "NetworkMeasurement",
    "ProfilerError",
    "RoundSamples",
    "TableError",
    "TableMismatchError",
    "Workload",
    "build_table",
    "measure_rounds",
]
