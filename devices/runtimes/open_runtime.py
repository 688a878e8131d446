"""Opens the runtime of a device."""

from __future__ import annotations

import platform

from devices.errors import DeviceError, RuntimeMissingError
from devices.processors import read_processors
from devices.runtimes.known_runtimes import RUNTIMES
from devices.runtimes.protocol import Runtime
from devices.spec import DeviceSpec


def open_runtime(spec: DeviceSpec) -> Runtime:
    """Open a device's runtime on this machine.

    Raises:
        DeviceError: If this machine has another architecture than the device, fewer processors
            than it has threads, or lacks the GPU.
        RuntimeMissingError: If the runtime's package is not installed, or lacks the provider.
    """
    if spec.machine not in (None, platform.machine()):
        raise DeviceError(
            f"a machine of architecture {spec.machine} for the device {spec.name!r}",
            platform.machine(),
            "Give the host of the right device, or choose another device (`edgesearch devices`).",
        )
    if spec.runtime_record.computes_on(spec.provider) == "processor":
        _check_threads(spec)
    return RUNTIMES[spec.runtime].open(spec.threads, spec.batch, spec.provider)


def _check_threads(spec: DeviceSpec) -> None:
    """Refuse more threads than can run at once: they would measure their own waiting."""
    found = read_processors()
    most = max(1, int(found.usable))  # one thread below its quota pauses, but runs undivided
    if spec.threads > most:
        raise DeviceError(
            f"{spec.threads} processors for the {spec.threads} threads of the device {spec.name!r}",
            str(found),
            f"Set device.threads={most}"
            + (
                " or give this process more: a wider CPU affinity (taskset, numactl) or CPU quota."
                if most < found.present
                else "."
            ),
        )


def installed_version(runtime: str) -> str | None:
    """Version of a runtime, a key of `RUNTIMES`; None if it is not installed here."""
    try:
        return RUNTIMES[runtime].installed_version()
    except RuntimeMissingError:
        return None
