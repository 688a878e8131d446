"""How compiled models are timed, and what is kept of it."""

from profilers.build_table import build_table
from profilers.errors import MissingKeyError, ProfilerError, TableError, TableMismatchError
from profilers.latency_table import LatencyTable, NetworkMeasurement
from profilers.measure import (
    KeyHistory,
    MeasureConfig,
    Measurement,
    RoundSamples,
    measure_rounds,
)
from profilers.meter import LocalMeter, Meter
from profilers.open_meter import open_meter
from profilers.steadiness import Steadiness
from profilers.workload import Workload

__all__ = [
    "KeyHistory",
    "LatencyTable",
    "LocalMeter",
    "MeasureConfig",
    "Measurement",
    "Meter",
    "MissingKeyError",
    "NetworkMeasurement",
    "ProfilerError",
    "RoundSamples",
    "Steadiness",
    "TableError",
    "TableMismatchError",
    "Workload",
    "build_table",
    "measure_rounds",
    "open_meter",
]
