"""Measures what a latency table lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from devices.files import JsonLines
from devices.spec import DeviceSpec
from profilers.errors import ProfilerError
from profilers.latency_record import LatencyRecord
from profilers.latency_table import LatencyTable
from profilers.measure import KeyHistory, MeasureConfig, Measurement, RoundSamples
from profilers.meter import Meter
from profilers.table_file import FORMAT, open_table
from profilers.table_identity import refuse_other_runs
from profilers.workload import Workload


def build_table(
    path: Path,
    *,
    spec: DeviceSpec,
    workloads: Sequence[Workload],
    meter: Meter,
    config: MeasureConfig,
    anchors: Sequence[Workload] = (),
    retry_errors: bool = False,
    accept: Collection[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> LatencyTable:
    """Measure the rounds that workloads lack by `MeasureConfig`; append each to the table at once.

    It can be stopped or killed at any moment and called again: an interrupted round is measured
    again. If nothing is missing, no model is loaded.

    Args:
        path: The table; created if missing.
        spec: The device; a table of another one is refused.
        workloads: What the table must hold. One that cannot be loaded or run is recorded as an
            error, and the others are measured.
        meter: Measures on the device; a table of another chip or runtime version is refused.
        config: Rounds, runs and bounds.
        anchors: Networks already in the table. They are measured again beside the missing
            workloads, to compare sessions by more than the reference workload; their own figures
            do not change.
        retry_errors: Whether to measure again what failed before.
        accept: Fields in which the table may differ from the device; see `LatencyTable.load`. A
            table of another runtime, precision, batch or thread count can be read, not extended.
        on_progress: Receives the rounds of workloads done and the least number in total.

    Returns:
        The whole table.

    Raises:
        ProfilerError: If two workloads have the same key, or the temporary folder is full.
        EngineError: If the runtime cannot run even the profiler's own small models.
        FileError: If the table cannot be read or written, or another process is writing it.
        TableMismatchError: If the table is of another device; names the field.
    """
    keys = [workload.key for workload in workloads]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ProfilerError("a key of its own for each workload", repr(twice[0]), "Rename one.")
    header = {
        "format": FORMAT,
        "device": spec.to_dict(),
        "fingerprint": meter.fingerprints[0].to_dict(),
        "measure": config.to_dict(),
    }
    with open_table(path, header) as file:
        found = meter.fingerprints[0]
        table = LatencyTable.load(path, expect=spec, expect_fingerprint=found, accept=accept)
        failed = set(table.errors)
        history = {key: KeyHistory() if key in failed else table.history(key) for key in keys}
        missing = {
            workload.key: workload
            for workload in workloads
            if config.lacks_rounds(history[workload.key])
            and (retry_errors or workload.key not in failed)
        }
        if not missing:
            return table
        refuse_other_runs(path, table.accepted)
        builder = _TableBuilder(file, table.last_session + 1, meter, config, on_progress)
        builder.measure(missing, anchors, history)
    return LatencyTable.load(path)


@dataclass
class _TableBuilder:
    """Writes sessions to the table while they are measured."""

    file: JsonLines
    first_session: int
    meter: Meter
    config: MeasureConfig
    on_progress: Callable[[int, int], None] | None
    begun: set[int] = field(default_factory=set)
    last: tuple[int, int] | None = None

    def measure(
        self,
        workloads: Mapping[str, Workload],
        anchors: Sequence[Workload],
        history: Mapping[str, KeyHistory],
    ) -> None:
        rounds = {key: history[key] for key in workloads}
        left = {key: max(1, self.config.rounds_left(rounds[key])) for key in workloads}
        done, anchors_by_key = 0, {anchor.key: anchor for anchor in anchors}
        measuring = self.meter.measure(list(workloads.values()), anchors, self.config, history)
        with contextlib.closing(measuring):  # type: ignore[type-var]
            for found in measuring:
                known = anchors_by_key if found.anchor else workloads
                self._append(found, known.get(found.key))
                if found.key in left and not found.anchor:
                    done += 1
                    left[found.key] = 0
                    if isinstance(found.outcome, RoundSamples):
                        is_lost = bool(found.outcome.waited_ms)
                        history_now = rounds[found.key].with_round(
                            found.outcome, counts=not is_lost
                        )
                        rounds[found.key] = history_now
                        left[found.key] = self.config.rounds_left(history_now)
                    if self.on_progress:
                        self.on_progress(done, done + sum(left.values()))

    def _append(self, found: Measurement, workload: Workload | None) -> None:
        session = self.first_session + found.session
        if session not in self.begun:
            self.begun.add(session)
            self.file.append(
                {
                    "type": "session",
                    "session": session,
                    "began": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
                    "fingerprint": self.meter.fingerprints[found.session].to_dict(),
                    "measure": self.config.to_dict(),
                }
            )
        samples = found.outcome if isinstance(found.outcome, RoundSamples) else None
        record = LatencyRecord(
            key=found.key,
            kind=found.key if workload is None else workload.kind,
            session=session,
            samples_ms=None if samples is None else samples.warm_ms,
            cold_ms=None if samples is None else samples.cold_ms,
            waited_ms=samples.waited_ms or None if samples is not None else None,
            round=None if samples is None else found.round,
            error=None if samples is not None else str(found.outcome),
            anchor=found.anchor,
            about=None if workload is None or found.anchor else workload.about,
            others=None if found.look is None else found.look.others,
            crowded=found.look is not None and found.look.crowded,
        )
        # One sync per round: a power failure may cost a round.
        place = (found.session, found.round)
        self.file.append(record.to_dict(), sync=place != self.last)
        self.last = place
