"""What the packages offer."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import devices
import profilers


@pytest.mark.parametrize("package", [devices, profilers])
def test_what_is_offered_is_there(package: ModuleType) -> None:
    assert all(hasattr(package, name) for name in package.__all__)


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
