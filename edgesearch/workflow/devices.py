"""Known devices and what was detected here."""

from __future__ import annotations

from typing import Any

from devices import known_devices, load_device, open_runtime, take_fingerprint


def describe_devices(name: str | None = None) -> dict[str, Any]:
    """Describe all known devices, or one, and this machine.

    Args:
        name: The device to describe; all of them if None.

    Returns:
        "devices": a list of descriptions; "detected": the fingerprint of this machine.

    Raises:
        UnknownDeviceError: There is no device of that name.
    """
    specs = [load_device(known) for known in (known_devices() if name is None else [name])]
    runtime = open_runtime(load_device("local-cpu"))
    fingerprint = take_fingerprint(runtime.name, runtime.version)
    return {
        "devices": [spec.to_dict() for spec in specs],
        "detected": fingerprint.to_dict(),
    }
