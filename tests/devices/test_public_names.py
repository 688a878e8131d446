"""What the packages offer is pinned."""

import subprocess
import sys
from pathlib import Path

import devices

RUNTIME_NAMES = {
    "EngineBuilder",
    "EngineHeader",
    "OnnxRuntime",
    "OrtBuilder",
    "ReplayRuntime",
    "Runtime",
    "Session",
    "TensorRTBuilder",
    "TensorRTRuntime",
    "explain_failure",
    "fix_batch",
    "installed_version",
    "layer_of",
    "modules_of",
    "open_runtime",
    "read_engine_header",
    "read_inputs",
}


def test_devices() -> None:
    assert set(devices.__all__) == RUNTIME_NAMES | {
        "DetectedRuntime",
        "DeviceSpec",
        "Fingerprint",
        "detect_runtimes",
        "hazards",
        "known_devices",
        "load_device",
        "read_catalog",
        "read_gpu",
        "read_machine",
        "take_fingerprint",
    }
    assert all(hasattr(devices, name) for name in devices.__all__)


def test_importing_loads_no_runtime() -> None:
    program = (
        "import devices, profilers, sys;"
        "print([m for m in ('cuda', 'onnx', 'onnxruntime', 'pycuda', 'tensorrt_rtx_bindings',"
        " 'torch', 'yaml') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(devices.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "[]"
