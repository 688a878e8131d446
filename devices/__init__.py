"""What a device is, and how a model is compiled, loaded and run on it."""

import os

# onnxruntime reads it on import. Without it, version 1.32 keeps an identifier of the device and
# usage data in the user's cache folder, and connects to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from devices.detect import DetectedRuntime, detect_runtimes, hazards
from devices.fingerprint import Fingerprint, take_fingerprint
from devices.gpu import read_gpu
from devices.machine import read_machine
from devices.runtimes.engine_header import EngineHeader, read_engine_header
from devices.runtimes.onnx_inputs import fix_batch, read_inputs
from devices.runtimes.onnx_layers import explain_failure, layer_of, modules_of
from devices.runtimes.onnxruntime_runtime import OnnxRuntime, OrtBuilder
from devices.runtimes.open_runtime import installed_version, open_runtime
from devices.runtimes.protocol import EngineBuilder, Runtime, Session
from devices.runtimes.replay_runtime import ReplayRuntime
from devices.runtimes.tensorrt_builder import TensorRTBuilder
from devices.runtimes.tensorrt_runtime import TensorRTRuntime
from devices.spec import DeviceSpec, known_devices, load_device, read_catalog

__all__ = [
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
