"""Which runtimes are installed on this machine, and what would disturb measurements on it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from devices.errors import RuntimeMissingError
from devices.runtimes.cuda_memory import CUDA_PACKAGES
from devices.runtimes.known_runtimes import RUNTIMES
from devices.runtimes.record import RuntimeRecord


@dataclass(frozen=True)
class DetectedRuntime:
    """A runtime, or a library that a runtime needs.

    Attributes:
        name: Its name.
        version: None if it cannot be used.
        missing: What is missing and how to install it; None if nothing is missing.
        providers: Execution providers of onnxruntime, by onnxruntime's names, best first.
    """

    name: str
    version: str | None
    missing: str | None = None
    providers: tuple[str, ...] = ()


def detect_runtimes() -> list[DetectedRuntime]:
    """Look for runtimes and what they need; only onnxruntime is imported, for its providers."""
    return [*map(_runtime, RUNTIMES.values()), *map(_package, CUDA_PACKAGES)]


def hazards(machine: Mapping[str, Any], threads: int, load: float | None) -> list[str]:
    """List the conditions that make latencies on this machine less repeatable.

    Args:
        machine: The result of `read_machine`.
        threads: Threads to measure with.
        load: Load average of the last minute; None if unknown.

    Returns:
        One sentence for each condition, with the remedy.
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
    if max(machine["processors"], 1) < threads:
        found.append(
            f"this process gets {machine['processors']:g} processor(s), but the device has "
            f"{threads} threads: start it with more, or set device.threads"
        )
    if load is not None and load > max(0.5, 0.1 * machine["cores"]):
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
