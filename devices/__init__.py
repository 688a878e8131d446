"""What a device is, and how a model is compiled, loaded and run on it."""

from devices.fingerprint import Fingerprint, take_fingerprint
from devices.runtimes import (
    EngineBuilder,
    EngineHeader,
    OnnxRuntime,
    OrtBuilder,
    ReplayRuntime,
    Runtime,
    Session,
    TensorRTRtxBuilder,
    open_runtime,
    read_engine_header,
)
from devices.spec import DeviceSpec, known_devices, load_device

__all__ = [
    "DeviceSpec",
    "EngineBuilder",
    "EngineHeader",
    "Fingerprint",
    "OnnxRuntime",
    "OrtBuilder",
    "ReplayRuntime",
    "Runtime",
    "Session",
    "TensorRTRtxBuilder",
    "known_devices",
    "load_device",
    "open_runtime",
    "read_engine_header",
    "take_fingerprint",
]
