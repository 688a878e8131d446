"""Timing one engine, or two in turn, with the protocol of the tables."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devices.errors import EngineError
from devices.spec import DeviceSpec
from profilers import statistics
from profilers.build_table import build_table
from profilers.errors import ProfilerError
from profilers.latency_table import LatencyTable
from profilers.measure import MeasureConfig
from profilers.meter import Meter
from profilers.steadiness import Steadiness
from profilers.workload import Workload


@dataclass(frozen=True)
class Timing:
    """How long the runs of an engine take.

    Attributes:
        rounds: Rounds that count.
        runs: Runs in them.
        p50_ms: Median over rounds of each round's median.
        interval_ms: Where it is with 95 % confidence.
        p90_ms: 90th percentile of all runs.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        low_ms: 10 % quantile of the rounds' fastest runs: what the work takes, undisturbed.
    """

    rounds: int
    runs: int
    p50_ms: float
    interval_ms: tuple[float, float]
    p90_ms: float
    p95_ms: float
    p99_ms: float
    low_ms: float


@dataclass(frozen=True)
class Ratio:
    """How the latencies of two engines compare.

    Attributes:
        rounds: Rounds in which both were measured, and which count for both.
        ratio: Median over them of the ratio of the medians, the first engine's by the second's.
        interval: Where it is with 95 % confidence.
    """

    rounds: int
    ratio: float
    interval: tuple[float, float]


def bench_engines(
    spec: DeviceSpec,
    meter: Meter,
    paths: Sequence[Path],
    config: MeasureConfig,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Timing], Ratio | None, Steadiness]:
    """Measure one or two engines, interleaved, beside the reference workload of the tables.

    Args:
        spec: The device.
        meter: Measures on it.
        paths: The files.
        config: Rounds, runs and bounds.
        on_progress: Is told how many rounds are done, of how many at least.

    Returns:
        The timing of each, the ratio of two, and how steady the machine was.

    Raises:
        EngineError: If an engine cannot be loaded or run.
        ProfilerError: If no round could be made of both.
    """
    keys = [f"engine {number}" for number in range(len(paths))]
    workloads = [Workload(key, path) for key, path in zip(keys, paths, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        table = build_table(
            Path(folder) / "bench.jsonl",
            spec=spec,
            workloads=workloads,
            meter=meter,
            config=config,
            on_progress=on_progress,
        )
        for key, path in zip(keys, paths, strict=True):
            if key in table.errors:
                raise EngineError(
                    f"an engine that {spec.name} can run at {path}",
                    table.errors[key],
                    "Use one that was made for this device and its runtime.",
                )
        timings = [_timing(table, key) for key in keys]
        ratio = _ratio(table, *keys) if len(keys) == 2 else None
        return timings, ratio, table.steadiness()


def _timing(table: LatencyTable, key: str) -> Timing:
    rounds = list(table.samples_ms(key).values())
    p90_ms, p95_ms, p99_ms = (statistics.percentile_ms(rounds, q) for q in (90, 95, 99))
    return Timing(
        rounds=len(rounds),
        runs=sum(map(len, rounds)),
        p50_ms=statistics.median_ms(rounds),
        interval_ms=statistics.median_interval_ms(rounds),
        p90_ms=p90_ms,
        p95_ms=p95_ms,
        p99_ms=p99_ms,
        low_ms=statistics.low_quantile_ms(rounds),
    )


def _ratio(table: LatencyTable, first: str, second: str) -> Ratio:
    ours, theirs = table.samples_ms(first), table.samples_ms(second)
    ratios = [
        [float(np.median(ours[which]) / np.median(theirs[which]))]
        for which in ours
        if which in theirs
    ]
    if not ratios:
        raise ProfilerError(
            "a round in which both engines were measured and the machine was not disturbed",
            f"{len(ours)} rounds of one and {len(theirs)} of the other",
            "Measure while the machine is idle, or raise --rounds.",
        )
    interval = statistics.median_interval_ms(ratios)
    return Ratio(len(ratios), statistics.median_ms(ratios), interval)
