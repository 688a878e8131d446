"""From the description of a device to what measures on it."""

from __future__ import annotations

from devices.fingerprint import take_fingerprint
from devices.runtimes.open_runtime import open_runtime
from devices.spec import DeviceSpec
from profilers.boards_meter import BoardsMeter
from profilers.meter import LocalMeter, Meter
from profilers.remote_meter import RemoteMeter


def open_meter(spec: DeviceSpec) -> Meter:
    """Return what measures on a device.

    Args:
        spec: The device.

    Raises:
        DeviceError: If there is no such runtime, it lacks the precision, or the device cannot be
            reached.
        RuntimeMissingError: If the runtime's package is not installed.
    """
    if spec.transport == "ssh":
        if len(spec.hosts) > 1:
            return BoardsMeter(spec, spec.hosts)
        return RemoteMeter(spec, spec.hosts[0])
    runtime = open_runtime(spec)
    return LocalMeter(runtime, take_fingerprint(runtime.name, runtime.version, runtime.settings))
