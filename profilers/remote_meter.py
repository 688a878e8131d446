"""Measuring on a board over ssh."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from devices.errors import (
    ConnectionLostError,
    DeviceError,
    RuntimeMissingError,
    UnreachableError,
)
from devices.fingerprint import Fingerprint
from devices.spec import DeviceSpec
from devices.transports.ssh import UNSET, SshTransport
from profilers import agent
from profilers.agent_archive import write_agent
from profilers.measure import KeyHistory, MeasureConfig, Measurement, RoundSamples
from profilers.meter import write_own_models
from profilers.steadiness import disturbed_stretches
from profilers.workload import Workload

PAUSES_SECONDS = (1, 2, 5, 10, 20, 40)
"""Pause before each attempt to reconnect; after the last one without progress, measuring fails."""


class RemoteMeter:
    """Measures on one board (an ssh host).

    An archive of this package and the models are sent to the board; it measures there and reports
    each round at once. After a lost connection it reconnects, and measures what is missing as
    another session.

    Raises:
        DeviceError: If the board cannot be reached, or lacks Python, numpy or the runtime.
    """

    def __init__(self, spec: DeviceSpec, host: str) -> None:
        self.host = host
        self.reference_ms = 0.0
        self.fingerprints: list[Fingerprint] = []
        self._spec = spec
        self._transport = SshTransport(host, uuid.uuid4().hex[:12], spec.ssh_config)
        self._agent: _Agent | None = None
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def measure(
        self,
        workloads: Sequence[Workload],
        anchors: Sequence[Workload],
        config: MeasureConfig,
        history: Mapping[str, KeyHistory],
    ) -> Iterator[Measurement]:
        """Measure workloads in rounds; see `Meter.measure`.

        Raises:
            ConnectionLostError: If the connection was lost and cannot be restored.
        """
        known = {workload.key: history.get(workload.key, KeyHistory()) for workload in workloads}
        left = {workload.key: workload for workload in workloads}
        failures, spent = 0, 0.0
        self.fingerprints = self.fingerprints[-1:]
        while left:
            made: list[Measurement] = []
            rest = replace(config, max_seconds=max(config.max_seconds - spent, 1e-3))
            try:
                if self._agent is None:
                    self._connect()
                before, begin = spent, None
                for found in self._measure(list(left.values()), anchors, rest, known):
                    if begin is None and isinstance(found.outcome, RoundSamples):
                        begin = time.monotonic()  # loading does not count
                    if found.key in left and not found.anchor:
                        failures = 0
                    yield found
                    if found.anchor:
                        pass
                    elif isinstance(found.outcome, RoundSamples):
                        made.append(found)
                    else:
                        left.pop(found.key, None)
                    spent = before if begin is None else before + time.monotonic() - begin
                return
            except (ConnectionLostError, UnreachableError) as error:
                self._hang_up()
                if failures == len(PAUSES_SECONDS):
                    raise ConnectionLostError(
                        f"a stable connection to {self.host}",
                        str(error),
                        "What was measured is kept: check the network and the board, and run the "
                        "same again.",
                    ) from error
                time.sleep(PAUSES_SECONDS[failures])
                failures += 1
            known = _with(known, made, config.tolerance)
            # After max_seconds only minimum_rounds are still made.
            is_late = spent >= config.max_seconds
            left = {
                key: workload
                for key, workload in left.items()
                if config.lacks_rounds(known[key])
                and not (is_late and known[key].attempts >= config.minimum_rounds)
            }

    def close(self) -> None:
        """End the agent and remove what was sent; see `Meter.close`."""
        self._hang_up()
        self._transport.close()

    def _connect(self) -> None:
        """Start the agent and read its fingerprint."""
        self._transport.connect()
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "agent.pyz"
            write_agent(archive)
            program = self._transport.put(archive)
            own_models = {
                key: self._transport.put(path)
                for key, path in write_own_models(Path(folder)).items()
            }
        self._agent = _Agent(self._transport, self._spec.python, program)
        local = replace(self._spec, transport="local", hosts=(), ssh_config=None)
        hello = self._agent.ask({"spec": local.to_dict(), "own_models": own_models})
        self.fingerprints.append(Fingerprint.from_dict(hello["fingerprint"]))
        self.reference_ms = hello["reference_ms"]

    def _measure(
        self,
        workloads: Sequence[Workload],
        anchors: Sequence[Workload],
        config: MeasureConfig,
        history: Mapping[str, KeyHistory],
    ) -> Iterator[Measurement]:
        assert self._agent is not None
        answer = self._agent.ask(
            {
                "workloads": {w.key: self._transport.put(w.onnx_path) for w in workloads},
                "anchors": {w.key: self._transport.put(w.onnx_path) for w in anchors},
                "config": config.to_dict(),
                "history": {k: [h.minima_ms, h.attempts] for k, h in history.items()},
            }
        )
        while "done" not in answer:
            yield agent.decode_measurement(answer, len(self.fingerprints) - 1)
            answer = self._agent.listen()

    def _hang_up(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None


class _Agent:
    """The agent on the board: one line out, one line in."""

    def __init__(self, transport: SshTransport, python: str, program: str) -> None:
        self._transport = transport
        self._python = python
        self._process = transport.start([python, program, transport.connection])
        self._has_begun = False
        self._said: list[bytes] = []
        self._reader = threading.Thread(target=self._collect_errors, daemon=True)
        self._reader.start()

    def _collect_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said = [*self._said[-20:], line]

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return the first line of the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended: `listen` raises the reason
        return self.listen()

    def listen(self) -> dict[str, Any]:
        """Return the next line of the answer.

        Raises:
            ConnectionLostError: If the connection was lost.
            UserError: If the agent reports a fault.
            DeviceError: If something else is printed between its lines.
        """
        token = self._transport.connection.encode()
        while not self._has_begun:  # skip output of the shell
            self._has_begun = self._line() == token
        line = self._line()
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._transport.intrusion(line.decode(errors="replace"))
        if "fault" in answer:
            raise agent.decode_error(answer["fault"], self._transport.host)
        return answer

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        return line.strip()

    def _ended(self) -> DeviceError:
        """The error that explains a missing answer."""
        status = self._process.wait()
        self._reader.join(timeout=5)
        said = b"".join(self._said).decode(errors="replace").strip()
        host, python = self._transport.host, self._python
        last = said.splitlines()[-1] if said else f"exit status {status}"
        if UNSET in last:
            remedy = "Name the interpreter by a variable that is set there without a login, or by "
            remedy += "its whole path: device.python."
            return RuntimeMissingError(f"the interpreter {python!r} on {host}", last, remedy)
        if status in (126, 127):  # the shell cannot run, or cannot find, the interpreter
            remedy = "Install Python 3.10 or newer there, or name its interpreter: device.python."
            return RuntimeMissingError(f"the interpreter {python!r} on {host}", last, remedy)
        if "edgesearch needs" in last:
            remedy = (
                f"On {host}: {python} -m pip install numpy, or set device.python to another one."
            )
            return RuntimeMissingError(f"Python 3.10 with numpy on {host}", last, remedy)
        if status in (0, 255):
            return ConnectionLostError(
                f"a stable connection to {host}", last, "Check the network and the board."
            )
        return self._transport.failure(status, said)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=5)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def _with(
    history: Mapping[str, KeyHistory], made: Sequence[Measurement], tolerance: float
) -> dict[str, KeyHistory]:
    """Histories with the rounds of one connection, in order, added.

    Disturbed and interrupted rounds do not count, as in `measure_rounds`.
    """
    looks = [measurement.look for measurement in made if measurement.look is not None]
    disturbed = disturbed_stretches(looks, tolerance)
    found, stretch = dict(history), 0
    for measurement in made:
        stretch += measurement.look is not None
        key, samples = measurement.key, measurement.outcome
        if key in found and isinstance(samples, RoundSamples):
            is_lost = stretch in disturbed or samples.waited_ms
            found[key] = found[key].with_round(samples, counts=not is_lost)
    return found
