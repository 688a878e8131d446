"""All runtimes by name."""

from __future__ import annotations

from devices.runtimes.onnxruntime_runtime import OnnxRuntimeRecord
from devices.runtimes.record import RuntimeRecord
from devices.runtimes.tensorrt_runtime import TensorRTRecord

RUNTIMES: dict[str, RuntimeRecord] = {
    "onnxruntime": OnnxRuntimeRecord(),
    "tensorrt": TensorRTRecord("tensorrt"),
    "tensorrt-rtx": TensorRTRecord("tensorrt-rtx"),
}
