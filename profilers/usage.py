"""What an engine needs of a device besides time: memory and power."""

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
"""So long an engine runs, and so long the device rests before, while power is read."""
_SECONDS_BETWEEN_SAMPLES = 0.05


@dataclass(frozen=True)
class Usage:
    """What an engine needs of a device.

    Attributes:
        memory_bytes: What loading and running it adds to the memory of a process of its own, at
            its peak; None where that cannot be read, and for engines that are in a GPU's memory.
        power_w: Mean power while it runs without a pause: of the whole device or, where an NVIDIA
            card runs it, of that card; None where neither is told.
        idle_power_w: The same before, at rest.
    """

    memory_bytes: int | None
    power_w: float | None
    idle_power_w: float | None


def usage_of(spec: DeviceSpec, path: Path) -> Usage:
    """Let a device run an engine in a process of its own, and look at what it needs.

    Args:
        spec: The device; of several boards the first one.
        path: The engine.

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
    # Beside what libraries and the start-up files of a shell print.
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
    """Be that process: run an engine here, and print what it needs.

    Args:
        request: The device as JSON.
        path: The engine.
    """
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
    """Run a model of next to nothing: what a runtime needs for itself is no engine's."""
    with tempfile.TemporaryDirectory() as folder:
        write_overhead_model(Path(folder) / "overhead.onnx")
        session = runtime.load(Path(folder) / "overhead.onnx")
    session.time_ms(1)
    session.close()


def _watch(power: PowerMeter, work: Callable[[], object]) -> None:
    """Repeat some work for a while, and look at the sensors between."""
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
