"""A glance at a device: both ends of a space, measured in seconds and kept nowhere."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devices import DeviceSpec
from edgesearch.events import Report, silent
from edgesearch.latency.table import NETWORK, WITH_HEAD
from edgesearch.latency.workloads import WorkloadFiles
from edgesearch.space import Architecture, SearchSpace
from edgesearch.tasks.head_costs import TaskHead
from profilers import MeasureConfig, Workload, build_table, open_meter
from profilers.reloading import ROUNDS_PER_LOAD

ROUNDS = 4
"""Rounds of a glance; the first of them warms up."""
BLOCKS = 16
"""Most blocks that are measured beside the networks."""
SECONDS = 10.0
"""No round begins later."""


@dataclass(frozen=True)
class Glimpse:
    """What a glance found of some models of one kind.

    Attributes:
        fastest_ms: Fastest run of each; None if the device cannot run it.
        rounds_s: Time of one round of each, with its share of the profiler's own models; 0 if the
            device cannot run it.
        reload_s: Time to load a model anew, as a share of each of its rounds.
    """

    fastest_ms: tuple[float | None, ...]
    rounds_s: tuple[float, ...]
    reload_s: float

    def round_s(self) -> float:
        """Time of one round of a model, on average."""
        return sum(self.rounds_s) / len(self.rounds_s)

    def rounds(self, measure: MeasureConfig) -> float:
        """Rounds that a model needs, on average; one that cannot run needs none."""
        needed = [measure.rounds_for(ms) for ms in self.fastest_ms if ms is not None]
        return sum(needed) / len(self.fastest_ms)

    def measuring_s(self, measure: MeasureConfig) -> float:
        """Time to measure a model, on average; short ones need more rounds than long ones."""
        each = zip(self.fastest_ms, self.rounds_s, strict=True)
        all_s = sum(
            measure.rounds_for(ms) * (s + self.reload_s) for ms, s in each if ms is not None
        )
        return all_s / len(self.rounds_s)


@dataclass(frozen=True)
class Glance:
    """What a glance found.

    Attributes:
        latencies_ms: Undisturbed latency of each network that the device can run.
        blocks: The blocks that were measured.
        networks: The networks that were measured.
        load_s: Time to load and warm up one model.
        exports_left: Networks that still have to be exported for all blocks.
        export_s: Time to export one network with its blocks; None if all were in the cache.
        record_bytes: Length of a line of a table.
    """

    latencies_ms: dict[Architecture, float]
    blocks: Glimpse
    networks: Glimpse
    load_s: float
    exports_left: int
    export_s: float | None
    record_bytes: float


def glance_at(
    space: SearchSpace,
    device: DeviceSpec,
    architectures: Sequence[Architecture],
    *,
    runs: int = MeasureConfig.runs,
    cache_dir: Path | None = None,
    report: Report = silent,
    head: TaskHead | None = None,
) -> Glance:
    """Measure some networks and blocks of a space on a device for a few seconds.

    With a head the networks are whole models. Exported blocks stay in the cache, where `profile`
    finds them; nothing else is kept.

    Raises:
        UserError: The device cannot be reached, or cannot run the networks.
    """
    with (
        tempfile.TemporaryDirectory(prefix="edgesearch-") as name,
        contextlib.closing(open_meter(device)) as meter,
    ):
        folder = Path(name)
        fingerprint, networks = meter.fingerprints[0], folder / "networks"
        with WorkloadFiles(space, device, fingerprint, networks, cache_dir, report) as files:
            begun = time.monotonic()
            for architecture in architectures:
                files.blocks_of(architecture)
            export_s = (time.monotonic() - begun) / files.exports if files.exports else None
            exports_left = files.exports_left()
            whole = (
                files.networks(architectures, NETWORK)
                if head is None
                else files.with_head(architectures, WITH_HEAD, head)
            )
            paths = {
                key: path for each in architectures for key, path in files.blocks_of(each).items()
            }
            chosen = list(paths.items())[:: max(1, len(paths) // BLOCKS)]
            workloads = [*whole, *(Workload(key, path) for key, path in chosen)]
            times = [time.monotonic()]
            table = build_table(
                folder / "glance.jsonl",
                spec=device,
                workloads=workloads,
                meter=meter,
                config=MeasureConfig(ROUNDS, runs, SECONDS, max_rounds=ROUNDS),
                on_progress=lambda done, total: times.append(time.monotonic()),
            )
            record_bytes = table.path.stat().st_size / sum(1 for _ in table.path.open("rb"))
    latencies_ms = {
        each: table.low_quantile_ms(workload.key, with_overhead=True)
        for each, workload in zip(architectures, whole, strict=True)
        if workload.key not in table.errors
    }
    # Nothing but rounds lies between the first result and the last.
    rounds_s = times[-1] - times[1]
    samples_ms = [
        [] if each.key in table.errors else [*table.samples_ms(each.key).values()]
        for each in workloads
    ]
    ran_ms = [sum(map(sum, rounds_ms)) for rounds_ms in samples_ms]
    made = [max(1, table.history(each.key).attempts) for each in workloads]
    total_ms = sum(ran_ms) or 1.0  # nothing could run
    each_s = [rounds_s * ms / total_ms / rounds for ms, rounds in zip(ran_ms, made, strict=True)]
    fastest_ms = [min(map(min, rounds_ms), default=None) for rounds_ms in samples_ms]
    count = len(whole)
    load_s = (times[1] - times[0]) / len(workloads)
    is_reloaded = device.runtime_record.computes_on(device.provider) == "processor"
    reload_s = load_s / ROUNDS_PER_LOAD if is_reloaded else 0.0
    return Glance(
        latencies_ms=latencies_ms,
        blocks=Glimpse(tuple(fastest_ms[count:]), tuple(each_s[count:]), reload_s),
        networks=Glimpse(tuple(fastest_ms[:count]), tuple(each_s[:count]), reload_s),
        load_s=load_s,
        exports_left=exports_left,
        export_s=export_s,
        record_bytes=record_bytes,
    )
