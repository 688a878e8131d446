"""Facts about this machine, read from system files and programs."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from devices.control_groups import control_groups, text_of
from devices.processors import read_processors

# Instruction sets by which inference libraries choose kernels, on x86-64 and Arm.
_INSTRUCTION_SETS = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
_ADMINISTRATORS_PATH = "/usr/sbin:/sbin"
_PROGRAM_TIMEOUT_S = 10.0


def read_machine(root: Path = Path("/")) -> dict[str, Any]:
    """Read all fields of a `Fingerprint` except those of GPU and runtime.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    processors = read_processors(root)
    cpus = processors.affinity or tuple(range(processors.present))
    return {
        "chip": chip(root),
        "cores": len(cpus),
        "instruction_sets": instruction_sets(root),
        "memory_bytes": _memory_bytes(),
        "os": f"{platform.system()} {platform.release()}".strip(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "affinity": processors.affinity,
        "processors": processors.usable,
        "physical_cores": processors.cores,
        "priority": os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else None,
        "governor": governor(root, cpus),
        "frequency_khz": frequency_khz(root, cpus),
        "power_mode": power_mode(),
        "temperature_c": temperature_c(root),
    }


def chip(root: Path) -> str:
    """Name of the board or, without one, of the processor."""
    # The board first: Arm kernels report the same processor name on very different boards.
    board = read_text(root / "proc/device-tree/model")
    if board:
        return board
    cpuinfo = _cpuinfo(root)
    if cpuinfo.get("model name"):
        # Virtual machines often hide the model's name; family and model still identify the chip.
        numbers = [f"{key} {cpuinfo[key]}" for key in ("cpu family", "model") if key in cpuinfo]
        return cpuinfo["model name"] + (f" ({', '.join(numbers)})" if numbers else "")
    if "CPU part" in cpuinfo:
        return f"Arm implementer {cpuinfo.get('CPU implementer')} part {cpuinfo['CPU part']}"
    is_mac = platform.system() == "Darwin"
    brand = ask_program("sysctl", "-n", "machdep.cpu.brand_string") if is_mac else None
    return brand or platform.processor() or platform.machine() or "unknown"


def instruction_sets(root: Path) -> tuple[str, ...]:
    """Instruction sets relevant to inference, named as in `/proc/cpuinfo`."""
    cpuinfo = _cpuinfo(root)
    flags = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    return tuple(name for name in _INSTRUCTION_SETS if name in flags)


def governor(root: Path, cpus: Iterable[int]) -> str | None:
    """Frequency governors of some cores, comma-separated."""
    found = {read_text(_cpufreq(root, cpu) / "scaling_governor") for cpu in cpus}
    return ", ".join(sorted(name for name in found if name)) or None


def frequency_khz(root: Path, cpus: Iterable[int]) -> tuple[int, int] | None:
    """Lowest and highest clock frequency that the governor may choose."""
    folders = [_cpufreq(root, cpu) for cpu in cpus]
    lowest = _numbers(folder / "scaling_min_freq" for folder in folders)
    highest = _numbers(folder / "scaling_max_freq" for folder in folders)
    return (min(lowest), max(highest)) if lowest and highest else None


def power_mode() -> str | None:
    """Power mode of a Jetson, such as `15W`; None on other machines."""
    found = re.search(r"NV Power Mode:\s*(\S+)", ask_program("nvpmodel", "-q") or "")
    return found[1] if found else None


def temperature_c(root: Path) -> float | None:
    """Temperature of the hottest thermal zone, in degrees Celsius."""
    zones = (root / "sys/class/thermal").glob("thermal_zone*")
    # The zone of a Jetson's power controller reports a constant above all others.
    true = [zone for zone in zones if "pmic" not in (read_text(zone / "type") or "").lower()]
    values = [number / 1000 for number in _numbers(zone / "temp" for zone in true)]
    return max((value for value in values if -40 < value < 150), default=None)


def read_text(path: Path) -> str | None:
    """Content of a file without surrounding white space and zeros; None if empty or unreadable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n\t ") or None
    except OSError:
        return None


def ask_program(name: str, *arguments: str) -> str | None:
    """Output of a system program; None if it is missing, prints nothing, fails or hangs."""
    # The PATH of an ssh session often lacks the sbin folders.
    program = shutil.which(name) or shutil.which(name, path=_ADMINISTRATORS_PATH)
    if program is None:
        return None
    try:
        answer = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PROGRAM_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def _cpuinfo(root: Path) -> Mapping[str, str]:
    """Entries of the first processor in `/proc/cpuinfo`; empty without that file."""
    first = (read_text(root / "proc/cpuinfo") or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpufreq(root: Path, cpu: int) -> Path:
    return root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq"


def _numbers(paths: Iterable[Path]) -> list[int]:
    """Integers in the files that hold one."""
    texts = [read_text(path) or "" for path in paths]
    return [int(text) for text in texts if re.fullmatch(r"-?[0-9]+", text)]


def usable_memory(root: Path = Path("/")) -> int:
    """Memory that this process can get, in bytes; 0 if the system does not tell.

    The least of the machine's memory, of the limits of its control group and those above it (as in
    a container), and of its address space (`ulimit -v`).

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    found = [_memory_bytes(), _address_space()]
    for folder in control_groups(root, "memory", ("memory",)):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = text_of(folder / name)  # version 2 says "max" where there is no limit
            found.append(int(text) if text.isdecimal() else 0)
    return min(filter(None, found), default=0)


def _address_space() -> int:
    """The largest address space that this process may have; 0 if it is not limited."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return 0 if limit == resource.RLIM_INFINITY else limit


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
