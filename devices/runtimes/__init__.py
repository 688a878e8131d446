"""Runtimes: compiling ONNX files to engines, loading them and running them."""

from devices.runtimes.engine_header import EngineHeader, read_engine_header
from devices.runtimes.onnx_inputs import fix_batch, read_inputs
from devices.runtimes.onnx_layers import explain_failure, layer_of, modules_of
from devices.runtimes.onnxruntime_runtime import ON_NVIDIA, OnnxRuntime, OrtBuilder
from devices.runtimes.open_runtime import RUNTIMES, installed_version, open_runtime
from devices.runtimes.protocol import EngineBuilder, Runtime, Session
from devices.runtimes.replay_runtime import ReplayRuntime
from devices.runtimes.tensorrt_builder import TensorRTBuilder, TensorRTRtxBuilder
from devices.runtimes.tensorrt_runtime import TensorRTRuntime

__all__ = [
    "ON_NVIDIA",
    "RUNTIMES",
    "EngineBuilder",
    "EngineHeader",
    "OnnxRuntime",
    "OrtBuilder",
    "ReplayRuntime",
    "Runtime",
    "Session",
    "TensorRTBuilder",
    "TensorRTRtxBuilder",
    "TensorRTRuntime",
    "explain_failure",
    "fix_batch",
    "installed_version",
    "layer_of",
    "modules_of",
    "open_runtime",
    "read_engine_header",
    "read_inputs",
]
