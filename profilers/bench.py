"""Timing one engine, or two interleaved, with the protocol of latency tables."""

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
    """Latency of an engine.

    Attributes:
        rounds: Rounds that count.
        runs: Runs in them.
        p50_ms: Median over rounds of each round's median.
        interval_ms: 95 % confidence interval of `p50_ms`.
        p90_ms: Percentile of all runs, as `p95_ms` and `p99_ms`.
        low_ms: 10 % quantile of the rounds' fastest runs: the undisturbed latency.
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
    """Ratio of the latencies of two engines.

    Attributes:
        rounds: Rounds that count for both.
        ratio: Median over rounds of the ratio of the medians, first engine to second.
        interval: 95 % confidence interval of `ratio`.
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
    """Measure one or two engines, interleaved, beside the reference workload.

    `on_progress` receives the rounds done and the least number in total.

    Returns:
        The timing of each, the ratio of two, and how steady the machine was.

    Raises:
        EngineError: If an engine cannot be loaded or run.
        ProfilerError: If no round counts for both.
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
                    "Use an engine built for this device and its runtime.",
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
            "an undisturbed round of both engines",
            f"{len(ours)} rounds of one and {len(theirs)} of the other",
            "Measure while the machine is idle, or raise --rounds.",
        )
    interval = statistics.median_interval_ms(ratios)
    return Ratio(len(ratios), statistics.median_ms(ratios), interval)
