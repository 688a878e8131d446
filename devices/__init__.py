"""What a device is, and how a model is compiled, loaded and run on it."""

from devices.detect import DetectedRuntime, detect_runtimes, hazards
from devices.fingerprint import Fingerprint, take_fingerprint
from devices.gpu import read_gpu
from devices.machine import read_machine
from devices.runtimes import (
    ON_NVIDIA,
    EngineBuilder,
    EngineHeader,
    OnnxRuntime,
    OrtBuilder,
    ReplayRuntime,
    Runtime,
    Session,
    TensorRTBuilder,
    TensorRTRtxBuilder,
    TensorRTRuntime,
    explain_failure,
    fix_batch,
    installed_version,
    layer_of,
    modules_of,
    open_runtime,
    read_engine_header,
    read_inputs,
)
from devices.spec import DeviceSpec, known_devices, load_device, read_catalog

__all__ = [
    "ON_NVIDIA",
    "DetectedRuntime",
    "DeviceSpec",
    "EngineBuilder",
    "EngineHeader",
    "Fingerprint",
    "OnnxRuntime",
    "OrtBuilder",
    "ReplayRuntime",
    "Runtime",
    "Session",
    "TensorRTBuilder",
    "TensorRTRtxBuilder",
    "TensorRTRuntime",
    "detect_runtimes",
    "explain_failure",
    "fix_batch",
    "hazards",
    "installed_version",
    "known_devices",
    "layer_of",
    "load_device",
    "modules_of",
    "open_runtime",
    "read_catalog",
    "read_engine_header",
    "read_gpu",
    "read_inputs",
    "read_machine",
    "take_fingerprint",
]
