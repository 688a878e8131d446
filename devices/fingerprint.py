"""What was really there when something was measured: chip, memory, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from devices.errors import DeviceError

# Those that change which kernels an inference library picks, on x86-64 and on Arm.
_INSTRUCTION_SETS = (
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
)
_CPUINFO = Path("/proc/cpuinfo")
_BOARD = Path("/proc/device-tree/model")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True)
class Fingerprint:
    """The machine and the runtime that measurements come from.

    Args:
        chip: Name of the processor or board.
        cores: Logical cores that this process may use.
        instruction_sets: Those that matter to inference, by their names in `/proc/cpuinfo`;
            empty where they cannot be read.
        memory_bytes: Physical memory; 0 where it cannot be read.
        os: Name and release of the operating system.
        machine: Architecture, such as `x86_64`.
        python: Version of Python.
        runtime: Name of the runtime.
        runtime_version: Its version.
        governor: Policy of the clock frequency; `None` where it cannot be read.
    """

    chip: str
    cores: int
    instruction_sets: tuple[str, ...]
    memory_bytes: int
    os: str
    machine: str
    python: str
    runtime: str
    runtime_version: str
    governor: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**asdict(self), "instruction_sets": list(self.instruction_sets)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fingerprint:
        """Make a fingerprint from what `to_dict` returned.

        Raises:
            DeviceError: If fields are missing or unknown.
        """
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            raise DeviceError(
                f"a fingerprint has the fields {', '.join(sorted(expected))}",
                ", ".join(sorted(map(str, values))) or "none",
                "Take the fingerprint again with this version.",
            )
        return cls(**{**values, "instruction_sets": tuple(values["instruction_sets"])})


def take_fingerprint(runtime_name: str, runtime_version: str) -> Fingerprint:
    """Look at this machine.

    Args:
        runtime_name: Name of the runtime in use.
        runtime_version: Its version.

    Returns:
        The fingerprint. What cannot be read is empty or zero, never an error.
    """
    cpuinfo = _cpuinfo()
    flags = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    return Fingerprint(
        chip=_chip(cpuinfo),
        cores=_cores(),
        instruction_sets=tuple(name for name in _INSTRUCTION_SETS if name in flags),
        memory_bytes=_memory_bytes(),
        os=f"{platform.system()} {platform.release()}".strip(),
        machine=platform.machine(),
        python=platform.python_version(),
        runtime=runtime_name,
        runtime_version=runtime_version,
        governor=_read(_GOVERNOR),
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _cpuinfo() -> dict[str, str]:
    """Return the first processor's entries; empty where the system has no such file."""
    first = (_read(_CPUINFO) or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _chip(cpuinfo: Mapping[str, str]) -> str:
    if cpuinfo.get("model name"):
        # Virtual machines often hide the model's number; family and model still tell chips apart.
        numbers = [f"{key} {cpuinfo[key]}" for key in ("cpu family", "model") if key in cpuinfo]
        return cpuinfo["model name"] + (f" ({', '.join(numbers)})" if numbers else "")
    board = _read(_BOARD)
    if board:
        return board
    if "CPU part" in cpuinfo:
        return f"Arm implementer {cpuinfo.get('CPU implementer')} part {cpuinfo['CPU part']}"
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
            return answer.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
