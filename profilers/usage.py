"""Memory and power that an engine needs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from devices.errors import EngineError
from devices.power import PowerMeter
from devices.runtimes.open_runtime import open_runtime
from devices.runtimes.protocol import Runtime
from devices.spec import DeviceSpec
from devices.transports.ssh import SshTransport
from profilers.agent_archive import write_agent
from profilers.own_models import write_overhead_model

SECONDS = 1.0
"""How long the device rests, and how long the engine runs, while power is read."""
_SECONDS_BETWEEN_SAMPLES = 0.05


@dataclass(frozen=True)
class Usage:
    """Memory and power that an engine needs.

    Attributes:
        memory_bytes: Peak memory that loading and running adds to a process; None if unreadable,
            and for engines in GPU memory.
        power_w: Mean power while it runs without pauses, of the whole device or, if an NVIDIA card
            runs it, of that card; None if no sensor reports it.
        idle_power_w: The same at rest, before.
    """

    memory_bytes: int | None
    power_w: float | None
    idle_power_w: float | None


def usage_of(spec: DeviceSpec, path: Path) -> Usage:
    """Measure the usage of an engine in a process of its own on the (first) device.

    Raises:
        DeviceError: If the device cannot be reached.
        EngineError: If the process fails.
    """
    local = replace(spec, transport="local", hosts=(), ssh_config=None)
    request = json.dumps(local.to_dict())
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "agent.pyz"
        write_agent(archive)
        if spec.transport != "ssh":
            command = [sys.executable, str(archive), "usage", request, str(path)]
            pipe = subprocess.PIPE
            return _answer(command, subprocess.Popen(command, stdout=pipe, stderr=pipe))
        transport = SshTransport(spec.hosts[0], uuid.uuid4().hex[:12], spec.ssh_config)
        try:
            transport.connect()
            there = [transport.put(archive), "usage", request, transport.put(path)]
            command = [spec.python, *there]
            return _answer(command, transport.start(command))
        finally:
            transport.close()


def _answer(command: Sequence[str], process: subprocess.Popen[bytes]) -> Usage:
    out, err = process.communicate()
    # Libraries and start-up files of a shell may print other lines.
    answers = [line for line in out.decode(errors="replace").splitlines() if line[:1] == "{"]
    if process.returncode or not answers:
        said = err.decode(errors="replace").strip().splitlines()
        raise EngineError(
            f"a process that runs {command[-1]}",
            said[-1] if said else f"exit status {process.returncode}",
            "Check the free memory of the device.",
        )
    return Usage(**json.loads(answers[-1]))


def print_usage(request: str, path: str) -> None:
    """Run an engine in this process and print its usage; `request` is the device as JSON."""
    spec = DeviceSpec.from_dict(json.loads(request))
    runtime = open_runtime(spec)
    computes_on = spec.runtime_record.computes_on(spec.provider)
    power = PowerMeter(of_card=computes_on == "nvidia")
    _watch(power, lambda: time.sleep(_SECONDS_BETWEEN_SAMPLES))
    idle_power_w = power.mean_w()
    _try_out(runtime)
    before = _memory_bytes("VmRSS")
    session = runtime.load(Path(path))
    try:
        power.restart()
        _watch(power, lambda: session.time_ms(1))
        power_w = power.mean_w()
    finally:
        session.close()
    after = _memory_bytes("VmHWM")
    known = before is not None and after is not None and computes_on == "processor"
    memory_bytes = max(after - before, 0) if known else None  # type: ignore[operator]
    print(json.dumps(asdict(Usage(memory_bytes, power_w, idle_power_w))))


def _try_out(runtime: Runtime) -> None:
    """Run a trivial model, so that memory of the runtime itself is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        write_overhead_model(Path(folder) / "overhead.onnx")
        session = runtime.load(Path(folder) / "overhead.onnx")
    session.time_ms(1)
    session.close()


def _watch(power: PowerMeter, work: Callable[[], object]) -> None:
    """Repeat some work for `SECONDS`, sampling the sensors."""
    end, sampled = time.monotonic() + SECONDS, 0.0
    while time.monotonic() < end:
        work()
        if time.monotonic() - sampled >= _SECONDS_BETWEEN_SAMPLES:
            power.sample()
            sampled = time.monotonic()


def _memory_bytes(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) << 10 if found else None
