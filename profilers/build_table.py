"""Measuring what is missing from a latency table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from devices.errors import EngineError
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
    """Measure the rounds that workloads lack, and append each to the table at once.

    How many they need is told by `MeasureConfig`.

    It can be stopped at any moment, killed included, and called again: a round that was cut off
    is measured again. If nothing is missing, no model is loaded.

    Args:
        path: The table; begun if it is not there.
        spec: The device; a table of another one is refused.
        workloads: What the table is to hold. One that cannot be loaded or run is recorded as an
            error, and the others are measured.
        meter: Measures on the device; a table of another chip or runtime version is refused.
        config: Rounds, runs and bounds.
        anchors: Networks that the table has already. They are measured again beside what is
            missing, so that a faster or slower state of the machine is known from more than the
            reference workload; their own figures stay as they are.
        retry_errors: Whether to measure anew what failed before.
        accept: Fields in which a table may differ from the device; see `LatencyTable.load`. One
            of another runtime, precision, batch or thread count may be read, not added to.
        on_progress: Is told how many rounds of workloads are done, of how many at least.

    Returns:
        The table, with what it held before.

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
        builder = _TableBuilder(file, table, meter, config, on_progress)
        builder.measure(missing, anchors, history)
    return LatencyTable.load(path)


class _TableBuilder:
    """Sessions of measuring, written as they come."""

    def __init__(
        self,
        file: JsonLines,
        table: LatencyTable,
        meter: Meter,
        config: MeasureConfig,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self._file = file
        self._first = table.last_session + 1
        self._begun: set[int] = set()
        self._last: tuple[int, int] | None = None
        self._meter = meter
        self._config = config
        self._on_progress = on_progress

    def measure(
        self,
        workloads: Mapping[str, Workload],
        anchors: Sequence[Workload],
        history: Mapping[str, KeyHistory],
    ) -> None:
        """Measure workloads, by key."""
        left = {key: max(1, self._config.rounds - len(history[key].minima_ms)) for key in workloads}
        done, anchors_by_key = 0, {anchor.key: anchor for anchor in anchors}
        measuring = self._meter.measure(list(workloads.values()), anchors, self._config, history)
        with contextlib.closing(measuring):  # type: ignore[type-var]
            for found in measuring:
                known = anchors_by_key if found.anchor else workloads
                self._append(found, known.get(found.key))
                if found.key in left and not found.anchor:
                    done += 1
                    is_error = isinstance(found.outcome, EngineError)
                    left[found.key] = 0 if is_error else max(0, left[found.key] - 1)
                    if self._on_progress:
                        self._on_progress(done, done + sum(left.values()))

    def _append(self, found: Measurement, workload: Workload | None) -> None:
        session = self._first + found.session
        if session not in self._begun:
            self._begun.add(session)
            self._file.append(
                {
                    "type": "session",
                    "session": session,
                    "began": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
                    "fingerprint": self._meter.fingerprints[found.session].to_dict(),
                    "measure": self._config.to_dict(),
                }
            )
        samples = found.outcome if isinstance(found.outcome, RoundSamples) else None
        record = LatencyRecord(
            key=found.key,
            kind=found.key if workload is None else workload.kind,
            session=session,
            samples_ms=None if samples is None else samples.warm_ms,
            cold_ms=None if samples is None else samples.cold_ms,
            round=None if samples is None else found.round,
            error=None if samples is not None else str(found.outcome),
            anchor=found.anchor,
            about=None if workload is None or found.anchor else workload.about,
        )
        # A power failure may cost a round.
        place = (found.session, found.round)
        self._file.append(record.to_dict(), sync=place != self._last)
        self._last = place
