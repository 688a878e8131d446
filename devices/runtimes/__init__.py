"""Runtimes: compiling ONNX files to engines, loading them and running them."""

from devices.runtimes.onnxruntime_runtime import OnnxRuntime, OrtBuilder
from devices.runtimes.open_runtime import RUNTIMES, open_runtime
from devices.runtimes.protocol import EngineBuilder, Runtime, Session
from devices.runtimes.replay_runtime import ReplayRuntime
from devices.runtimes.tensorrt_runtime import (
    EngineHeader,
    TensorRTRtxBuilder,
    read_engine_header,
)

__all__ = [
    "RUNTIMES",
    "EngineBuilder",
    "EngineHeader",
    "OnnxRuntime",
    "OrtBuilder",
    "ReplayRuntime",
    "Runtime",
    "Session",
    "TensorRTRtxBuilder",
    "open_runtime",
    "read_engine_header",
]
