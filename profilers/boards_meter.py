"""Several boards of one kind that share the work of measuring."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from devices.errors import DeviceError
from devices.fingerprint import Fingerprint, take_fingerprint
from devices.runtimes.open_runtime import open_runtime
from devices.spec import IDENTITY_FIELDS, DeviceSpec
from profilers.measure import KeyHistory, MeasureConfig, Measurement
from profilers.meter import LocalMeter, Meter
from profilers.remote_meter import RemoteMeter
from profilers.workload import Workload

REFERENCE_TOLERANCE = 0.1
"""Boards whose reference latencies differ by more than this share are not of one kind."""
SHARED_NETWORKS = 4
"""Networks that all boards measure, so that what one board measured can be compared."""


def open_meter(spec: DeviceSpec) -> Meter:
    """Return what measures on a device.

    Args:
        spec: The device.

    Raises:
        DeviceError: If there is no such runtime, it lacks the precision, or the device cannot be
            reached.
        RuntimeMissingError: If the runtime's package is not installed.
    """
    if spec.transport == "ssh" and len(spec.hosts) > 1:
        return BoardsMeter(spec, spec.hosts)
    if spec.transport == "ssh":
        return RemoteMeter(spec, spec.hosts[0])
    runtime = open_runtime(spec)
    return LocalMeter(runtime, take_fingerprint(runtime.name, runtime.version, runtime.settings))


class BoardsMeter:
    """Measures on several boards at once, each with its share of the workloads.

    Args:
        spec: The device.
        hosts: The boards, by their names for the ssh client.

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
        """Measure workloads in rounds; see `Meter.measure`. Each board is a session of its own.

        Raises:
            ConnectionLostError: If the connection to a board was lost and cannot be made again.
        """
        shared = (
            [w for w in workloads if w.kind != "block"][:SHARED_NETWORKS] if not anchors else []
        )
        shares = _shares([w for w in workloads if w not in shared], shared, len(self._boards))
        found: queue.Queue[tuple[int, Measurement | BaseException | None]] = queue.Queue()
        stop = threading.Event()

        def work(number: int) -> None:
            board, others = self._boards[number], [*anchors, *(shared if number else ())]
            try:
                for measurement in board.measure(shares[number], others, config, history):
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
        """What the boards give, their sessions numbered anew in the order of their first lines."""
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
        """Let go of all boards; see `Meter.close`."""
        for board in self._boards:
            board.close()


def _shares(
    workloads: Sequence[Workload], shared: Sequence[Workload], count: int
) -> list[list[Workload]]:
    """Every count-th workload for each board; the first one has those that all compare by, too."""
    shares = [list(workloads[number::count]) for number in range(count)]
    shares[0] += shared
    return shares


def _check_alike(first: RemoteMeter, other: RemoteMeter) -> None:
    for field in IDENTITY_FIELDS:
        wanted, found = (getattr(board.fingerprints[-1], field) for board in (first, other))
        if wanted != found:
            raise DeviceError(
                f"boards of one kind: {field} {wanted!r} as on {first.host}",
                f"{found!r} on {other.host}",
                "Give boards of one kind in device.hosts, with the same software.",
            )
    ratio = other.reference_ms / first.reference_ms
    if abs(ratio - 1) > REFERENCE_TOLERANCE:
        raise DeviceError(
            f"boards on which the reference workload takes the same time, within "
            f"{REFERENCE_TOLERANCE:.0%}",
            f"{first.reference_ms:.3f} ms on {first.host}, "
            f"{other.reference_ms:.3f} ms on {other.host}",
            "Compare their clocks, cooling, power modes and load.",
        )
