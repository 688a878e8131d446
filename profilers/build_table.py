"""Measuring what is missing from a latency table."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from devices.errors import EngineError
from devices.fingerprint import Fingerprint
from devices.runtimes import Runtime, Session
from devices.spec import DeviceSpec
from profilers.errors import ProfilerError
from profilers.latency_record import ANCHOR, LatencyRecord
from profilers.latency_table import LatencyTable
from profilers.measure import MeasureConfig, RoundSamples, measure_rounds
from profilers.own_models import write_overhead_model, write_reference_model
from profilers.table_file import FORMAT, TableFile
from profilers.workload import OVERHEAD_KEY, REFERENCE_KEY, Workload

# In this order they open each round. The reference comes first, so that no sample of a session is
# without one to compare with, wherever the session is cut off.
_OWN_MODELS = {REFERENCE_KEY: write_reference_model, OVERHEAD_KEY: write_overhead_model}


def build_table(
    path: Path,
    *,
    spec: DeviceSpec,
    fingerprint: Fingerprint,
    workloads: Sequence[Workload],
    runtime: Runtime,
    config: MeasureConfig,
    anchors: Sequence[Workload] = (),
    retry_errors: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> LatencyTable:
    """Measure the rounds that workloads lack, and append each to the table at once.

    It can be stopped at any moment, killed included, and called again: a round that was cut off
    is measured again. If nothing is missing, no model is loaded.

    Args:
        path: The table; begun if it is not there.
        spec: The device; a table of another one is refused.
        fingerprint: What is there now; a table of another chip or runtime version is refused.
        workloads: What the table is to hold. One that cannot be loaded or run is recorded as an
            error, and the others are measured.
        runtime: Loads and runs the workloads' files.
        config: Rounds, runs and bounds.
        anchors: Networks that the table has already. They are measured again beside what is
            missing, so that a faster or slower state of the machine is known from more than the
            reference workload; their own figures stay as they are.
        retry_errors: Whether to try again what failed before.
        on_progress: Is told how many rounds of workloads are done, of how many.

    Returns:
        The table, with what it held before.

    Raises:
        ProfilerError: If two workloads have the same key, or the temporary folder is full.
        EngineError: If the runtime cannot run even the profiler's own small models.
        TableError: If the table cannot be read or written, or another process is writing it.
        TableMismatchError: If the table is of another device; names the field.
    """
    keys = [workload.key for workload in workloads]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ProfilerError("a key of its own for each workload", repr(twice[0]), "Rename one.")
    header = {
        "format": FORMAT,
        "device": spec.to_dict(),
        "fingerprint": fingerprint.to_dict(),
        "measure": config.to_dict(),
    }
    with TableFile(path, header) as file:
        table = LatencyTable.load(path, expect=spec, expect_fingerprint=fingerprint)
        missing = [
            workload
            for workload in workloads
            if table.rounds(workload.key) < config.rounds
            and (retry_errors or workload.key not in table.errors)
        ]
        if not missing:
            return table
        builder = _TableBuilder(file, table, runtime, config, on_progress)
        builder.measure(missing, anchors)
    return LatencyTable.load(path)


class _TableBuilder:
    """One session of measuring."""

    def __init__(
        self,
        file: TableFile,
        table: LatencyTable,
        runtime: Runtime,
        config: MeasureConfig,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self._file = file
        self._table = table
        self._number = table.last_session + 1
        self._runtime = runtime
        self._config = config
        self._on_progress = on_progress

    def measure(self, workloads: Sequence[Workload], anchors: Sequence[Workload]) -> None:
        with contextlib.ExitStack() as stack:
            sessions = self._load_own_models()
            for session in sessions.values():
                stack.callback(session.close)
            loaded = {}
            for workload in workloads:
                try:
                    sessions[workload.key] = self._runtime.load(workload.onnx_path)
                except EngineError as error:
                    self._append(workload.key, workload, error=error)
                    continue
                stack.callback(sessions[workload.key].close)
                loaded[workload.key] = workload
            for workload in anchors:
                with contextlib.suppress(EngineError):  # the others will do
                    sessions[ANCHOR + workload.key] = self._runtime.load(workload.onnx_path)
                    stack.callback(sessions[ANCHOR + workload.key].close)
            self._measure_loaded(loaded, sessions)

    def _measure_loaded(self, workloads: dict[str, Workload], sessions: dict[str, Session]) -> None:
        rounds_done = {key: self._table.rounds(key) for key in workloads}
        total = sum(self._config.rounds - done for done in rounds_done.values())
        done, last_round = 0, None
        always = [key for key in sessions if key not in workloads]
        for number, key, outcome in measure_rounds(sessions, self._config, rounds_done, always):
            if number != last_round:
                self._file.sync()
                last_round = number
            workload = workloads.get(key)
            if isinstance(outcome, EngineError):
                if key.startswith(ANCHOR):
                    continue
                if workload is None:
                    raise outcome
                self._append(key, workload, error=outcome)
                continue
            self._append(key, workload, number, outcome)
            if workload is not None:
                done += 1
                if self._on_progress:
                    self._on_progress(done, total)
        self._file.sync()

    def _load_own_models(self) -> dict[str, Session]:
        with tempfile.TemporaryDirectory() as folder:
            paths = {key: Path(folder) / f"{key}.onnx" for key in _OWN_MODELS}
            try:
                for key, write in _OWN_MODELS.items():
                    write(paths[key])
            except OSError as error:
                raise ProfilerError(
                    f"to write two small models to {tempfile.gettempdir()}",
                    error.strerror or str(error),
                    "Free space there, or let TMPDIR name another folder.",
                ) from error
            return {key: self._runtime.load(path) for key, path in paths.items()}

    def _append(
        self,
        key: str,
        workload: Workload | None,
        number: int | None = None,
        samples: RoundSamples | None = None,
        error: EngineError | None = None,
    ) -> None:
        own_kind = "anchor" if key.startswith(ANCHOR) else key
        record = LatencyRecord(
            key=key,
            kind=own_kind if workload is None else workload.kind,
            session=self._number,
            samples_ms=None if samples is None else samples.warm_ms,
            cold_ms=None if samples is None else samples.cold_ms,
            round=number,
            error=None if error is None else str(error),
            architecture=None if workload is None else workload.architecture,
            space_hash=None if workload is None else workload.space_hash,
        )
        self._file.append(record.to_dict())
