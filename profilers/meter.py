"""Meters: they measure workloads on a device and yield the samples round by round."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from devices.errors import EngineError
from devices.fingerprint import Fingerprint
from devices.runtimes.known_runtimes import RUNTIMES
from devices.runtimes.protocol import Runtime, Session, TimedSession
from profilers.errors import ProfilerError
from profilers.measure import KeyHistory, MeasureConfig, Measurement, measure_rounds
from profilers.own_models import write_overhead_model, write_reference_model
from profilers.reloading import ReloadingSession
from profilers.workload import OVERHEAD_KEY, REFERENCE_KEY, Workload

_ANCHOR = "anchor: "
"""Prefix that separates an anchor from a workload of the same key."""
OWN_MODELS = {REFERENCE_KEY: write_reference_model, OVERHEAD_KEY: write_overhead_model}


class Meter(Protocol):
    """Measures workloads on one device."""

    @property
    def fingerprints(self) -> Sequence[Fingerprint]:
        """One fingerprint for each session that `measure` has started, and at least one."""

    def measure(
        self,
        workloads: Sequence[Workload],
        anchors: Sequence[Workload],
        config: MeasureConfig,
        history: Mapping[str, KeyHistory],
    ) -> Iterator[Measurement]:
        """Measure workloads in rounds; see `measure_rounds`.

        The profiler's own models and the anchors are measured in every round.

        Args:
            workloads: Workloads that lack rounds. One that cannot be loaded or run yields an error,
                and the others are measured.
            anchors: Networks that were measured before, to compare sessions; one that fails is left
                out.
            config: Rounds, runs and bounds.
            history: Previous rounds of the workloads.

        Raises:
            EngineError: If the runtime cannot run even the profiler's own small models.
            ProfilerError: If the temporary folder is full.
        """

    def close(self) -> None:
        """Release the device. Closing again does nothing."""


class LocalMeter:
    """Measures on this machine; `own_models` are files of `OWN_MODELS`, written if None."""

    def __init__(
        self,
        runtime: Runtime,
        fingerprint: Fingerprint,
        own_models: Mapping[str, Path] | None = None,
    ) -> None:
        self.fingerprints = [fingerprint]
        self._runtime = runtime
        self._own_models = own_models

    def measure(
        self,
        workloads: Sequence[Workload],
        anchors: Sequence[Workload],
        config: MeasureConfig,
        history: Mapping[str, KeyHistory],
    ) -> Iterator[Measurement]:
        """Measure workloads in rounds; see `Meter.measure`."""
        with contextlib.ExitStack() as stack:
            sessions: dict[str, TimedSession] = {**self._load_own_models()}
            for session in sessions.values():
                stack.callback(session.close)
            for workload in anchors:
                with contextlib.suppress(EngineError):  # the other anchors suffice
                    sessions[_ANCHOR + workload.key] = self._load(workload.onnx_path, stack)
            always = [key for key in sessions if key != REFERENCE_KEY]
            for workload in workloads:
                try:
                    sessions[workload.key] = self._load(workload.onnx_path, stack)
                except EngineError as error:
                    yield Measurement(1, workload.key, error)
            rounds = measure_rounds(sessions, config, history, always, REFERENCE_KEY, self._spare())
            for found in rounds:
                failed = isinstance(found.outcome, EngineError)
                if failed and found.key in OWN_MODELS:
                    raise found.outcome  # type: ignore[misc]
                if found.key.startswith(_ANCHOR):
                    key = found.key.removeprefix(_ANCHOR)
                    found = replace(found, key=key, anchor=True)
                if not (failed and found.anchor):
                    yield found

    def close(self) -> None:
        """Do nothing: `measure` closes its sessions."""

    def _computes_on_a_processor(self) -> bool:
        record, settings = RUNTIMES.get(self._runtime.name), self._runtime.settings
        return record is not None and record.computes_on(settings.get("provider")) == "processor"

    def _spare(self) -> float:
        """Processors that other programs may use without sharing a core with the runs."""
        if not self._computes_on_a_processor():
            return math.inf
        threads = int(self._runtime.settings["threads"])
        return max(0, self.fingerprints[0].physical_cores - threads)

    def _load(self, path: Path, stack: contextlib.ExitStack) -> TimedSession:
        """Load an engine; one for a GPU once only, since loading it may mean compiling it."""
        again = self._computes_on_a_processor()
        session = ReloadingSession(self._runtime, path) if again else self._runtime.load(path)
        stack.callback(session.close)
        return session

    def _load_own_models(self) -> dict[str, Session]:
        if self._own_models is not None:
            return {key: self._runtime.load(path) for key, path in self._own_models.items()}
        with tempfile.TemporaryDirectory() as folder:
            paths = write_own_models(Path(folder))
            return {key: self._runtime.load(path) for key, path in paths.items()}


def write_own_models(folder: Path) -> dict[str, Path]:
    """Write the models that are measured beside all workloads; return their files by key.

    Raises:
        ProfilerError: If the folder is full.
    """
    paths = {key: folder / f"{key}.onnx" for key in OWN_MODELS}
    try:
        for key, write in OWN_MODELS.items():
            write(paths[key])
    except OSError as error:
        raise ProfilerError(
            f"to write two small models to {folder.parent}",
            error.strerror or str(error),
            "Free space there, or let TMPDIR name another folder.",
        ) from error
    return paths
