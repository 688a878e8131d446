"""Command devices: known devices, and this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from devices import (
    DetectedRuntime,
    detect_runtimes,
    hazards,
    known_devices,
    read_catalog,
    read_gpu,
    read_machine,
)


@dataclass(frozen=True)
class DevicesResult:
    """Result of `describe_devices`.

    Attributes:
        hazards: Conditions that make latency tables of this machine less accurate.
    """

    devices: tuple[dict[str, Any], ...]
    machine: dict[str, Any]
    gpu: dict[str, Any]
    runtimes: tuple[DetectedRuntime, ...]
    hazards: tuple[str, ...]


def describe_devices(name: str | None = None) -> DevicesResult:
    """Describe all known devices, or one, and this machine.

    Raises:
        UnknownDeviceError: No device has this name.
    """
    described = tuple(map(read_catalog, known_devices() if name is None else [name]))
    machine = read_machine()
    return DevicesResult(
        devices=described,
        machine=machine,
        gpu=read_gpu(),
        runtimes=tuple(detect_runtimes()),
        hazards=tuple(hazards(machine, threads=1, load=_load())),
    )


def _load() -> float | None:
    """Load average of the last minute."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on every system
        return None
