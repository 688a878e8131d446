"""What a device is, and how a model is compiled, loaded and run on it."""

from devices.fingerprint import Fingerprint, take_fingerprint
from devices.spec import DeviceSpec, known_devices, load_device

__all__ = [
    "DeviceSpec",
    "Fingerprint",
    "known_devices",
    "load_device",
    "take_fingerprint",
]
