"""Several boards of one kind that share the measuring."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from devices.errors import DeviceError
from devices.fingerprint import Fingerprint, take_fingerprint
from devices.runtimes.open_runtime import open_runtime
from devices.spec import IDENTITY_FIELDS, DeviceSpec
from devices.values import in_yaml
from profilers.measure import KeyHistory, MeasureConfig, Measurement
from profilers.meter import LocalMeter, Meter
from profilers.remote_meter import RemoteMeter
from profilers.workload import Workload

REFERENCE_TOLERANCE = 0.1
"""Largest relative difference of reference latencies between boards of one kind."""
SHARED_NETWORKS = 4
"""Networks that all boards measure, to make their latencies comparable."""


def open_meter(spec: DeviceSpec) -> Meter:
    """Open the meter of a device.

    Raises:
        DeviceError: If the runtime lacks the precision, or the device cannot be reached.
        RuntimeMissingError: If the runtime's package is not installed.
    """
    if spec.transport == "ssh" and len(spec.hosts) > 1:
        return BoardsMeter(spec, spec.hosts)
    if spec.transport == "ssh":
        return RemoteMeter(spec, spec.hosts[0])
    runtime = open_runtime(spec)
    return LocalMeter(runtime, take_fingerprint(runtime.name, runtime.version, runtime.settings))


class BoardsMeter:
    """Measures on several boards (ssh hosts) at once, each with a share of the workloads.

    Raises:
        DeviceError: If a board cannot be reached, or is of another kind than the first.
    """

    def __init__(self, spec: DeviceSpec, hosts: Sequence[str]) -> None:
        self._boards: list[RemoteMeter] = []
        try:
            for host in hosts:
                self._boards.append(RemoteMeter(spec, host))
            for other in self._boards[1:]:
                _check_alike(self._boards[0], other)
        except BaseException:
            self.close()
            raise
        self.fingerprints: list[Fingerprint] = [self._boards[0].fingerprints[-1]]

    def measure(
        self,
        workloads: Sequence[Workload],
        anchors: Sequence[Workload],
        config: MeasureConfig,
        history: Mapping[str, KeyHistory],
    ) -> Iterator[Measurement]:
        """Measure workloads in rounds, a session for each board; see `Meter.measure`.

        Raises:
            ConnectionLostError: If the connection to a board was lost and cannot be restored.
        """
        networks = [workload for workload in workloads if workload.kind != "block"]
        shared = [] if anchors else networks[:SHARED_NETWORKS]
        others = [w for w in workloads if w not in shared]
        shares = [others[number :: len(self._boards)] for number in range(len(self._boards))]
        shares[0] += shared  # anchors on all other boards
        found: queue.Queue[tuple[int, Measurement | BaseException | None]] = queue.Queue()
        stop = threading.Event()

        def work(number: int) -> None:
            board, compared = self._boards[number], [*anchors, *(shared if number else ())]
            try:
                for measurement in board.measure(shares[number], compared, config, history):
                    found.put((number, measurement))
                    if stop.is_set():
                        return
                found.put((number, None))
            except BaseException as error:
                found.put((number, error))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(self._boards))]
        for thread in threads:
            thread.start()
        try:
            yield from self._collect(found)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _collect(
        self, found: queue.Queue[tuple[int, Measurement | BaseException | None]]
    ) -> Iterator[Measurement]:
        """The boards' measurements, with sessions numbered in order of their first measurement."""
        sessions: dict[tuple[int, int], int] = {}
        self.fingerprints = []
        running = len(self._boards)
        while running:
            number, measurement = found.get()
            if isinstance(measurement, BaseException):
                raise measurement
            if measurement is None:
                running -= 1
                continue
            own = (number, measurement.session)
            if own not in sessions:
                sessions[own] = len(sessions)
                self.fingerprints.append(self._boards[number].fingerprints[measurement.session])
            yield replace(measurement, session=sessions[own])

    def close(self) -> None:
        """See `Meter.close`."""
        for board in self._boards:
            board.close()


def _check_alike(first: RemoteMeter, other: RemoteMeter) -> None:
    for field in IDENTITY_FIELDS:
        wanted, found = (getattr(board.fingerprints[-1], field) for board in (first, other))
        if wanted != found:
            raise DeviceError(
                f"boards of one kind: {field} {in_yaml(wanted)} as on {first.host}",
                f"{in_yaml(found)} on {other.host}",
                "List only boards of one kind, with the same software, in device.hosts.",
            )
    ratio = other.reference_ms / first.reference_ms
    if abs(ratio - 1) > REFERENCE_TOLERANCE:
        raise DeviceError(
            f"boards of equal reference latency within {REFERENCE_TOLERANCE:.0%}",
            f"{first.reference_ms:.3f} ms on {first.host}, "
            f"{other.reference_ms:.3f} ms on {other.host}",
            "Compare their clocks, cooling, power modes and load.",
        )
