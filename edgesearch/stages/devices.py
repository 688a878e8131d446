"""Known devices, and what was detected here."""

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
    """Descriptions of devices, and this machine.

    Attributes:
        devices: What the catalog says of each; see `devices.read_catalog`.
        machine: What `devices.read_machine` found here.
        gpu: What `devices.read_gpu` found here.
        runtimes: Runtimes and what they need, installed or not.
        hazards: What would make tables of this machine worse than they could be.
    """

    devices: tuple[dict[str, Any], ...]
    machine: dict[str, Any]
    gpu: dict[str, Any]
    runtimes: tuple[DetectedRuntime, ...]
    hazards: tuple[str, ...]


def describe_devices(name: str | None = None) -> DevicesResult:
    """Describe all known devices, or one, and this machine.

    Args:
        name: The device to describe; all of them if None.

    Raises:
        UnknownDeviceError: There is no device of that name.
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
    """Processes that wanted to run in the last minute, on average."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on every system
        return None
