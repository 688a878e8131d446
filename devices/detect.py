"""What is installed on this machine, and what about it would spoil measurements."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from devices.errors import RuntimeMissingError
from devices.runtimes.cuda_memory import CUDA_PACKAGES
from devices.runtimes.known_runtimes import RUNTIMES
from devices.runtimes.record import RuntimeRecord

_BUSY_LOAD = 0.5
_BUSY_SHARE = 0.1


@dataclass(frozen=True)
class DetectedRuntime:
    """A runtime, or a library that a runtime needs: its version, or what is missing.

    Args:
        name: Its name.
        version: Its version; None if it cannot be used.
        missing: What is missing, and how to get it; None if nothing is.
        providers: Execution providers of onnxruntime, by its names for them, best first.
    """

    name: str
    version: str | None
    missing: str | None = None
    providers: tuple[str, ...] = ()


def detect_runtimes() -> list[DetectedRuntime]:
    """Look for runtimes and what they need; only onnxruntime is imported, for its providers."""
    return [*map(_runtime, RUNTIMES.values()), *map(_package, CUDA_PACKAGES)]


def hazards(machine: Mapping[str, Any], threads: int, load: float | None) -> list[str]:
    """Return what would make a latency table of this machine worse than it could be.

    Args:
        machine: What `read_machine` returned.
        threads: Threads that are to be measured with.
        load: Processes that wanted to run in the last minute, on average; None if unknown.

    Returns:
        One sentence for each, with what to do about it.
    """
    found = []
    low, high = machine["frequency_khz"] or (0, 1)
    if machine["governor"] not in (None, "performance") and low != high:
        remedy = "sudo cpupower frequency-set -g performance"
        if machine["power_mode"]:
            remedy = "sudo jetson_clocks"
        found.append(
            f"the clock frequency changes with the load (governor {machine['governor']}): {remedy}"
        )
    if machine["cores"] < threads:
        found.append(
            f"this process may use {machine['cores']} logical core(s), but the device has "
            f"{threads} threads: start it with more (taskset), or set device.threads"
        )
    if load is not None and load > max(_BUSY_LOAD, _BUSY_SHARE * machine["cores"]):
        found.append(f"the machine is busy (load {load:.1f}): measure when others are done")
    return found


def _runtime(record: RuntimeRecord) -> DetectedRuntime:
    try:
        version, providers = record.detect()
    except RuntimeMissingError as error:
        return DetectedRuntime(record.name, None, f"{error.found} ({record.install})")
    return DetectedRuntime(record.name, version, providers=providers)


def _package(name: str) -> DetectedRuntime:
    try:
        return DetectedRuntime(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return DetectedRuntime(name, None, f"not installed (pip install {name})")
