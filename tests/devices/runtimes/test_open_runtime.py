"""From a description to a runtime."""

import platform

import onnxruntime
import pytest

from devices import (
    DeviceSpec,
    installed_version,
    known_devices,
    load_device,
    open_runtime,
    read_catalog,
)
from devices.errors import DeviceError
from devices.runtimes.known_runtimes import RUNTIMES


def test_every_device_of_the_catalog_has_a_runtime() -> None:
    assert known_devices()
    for name in known_devices():
        assert read_catalog(name)["runtime"] in RUNTIMES


def test_the_version_of_tensorrt_is_known_without_a_gpu() -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    assert installed_version("tensorrt-rtx") == trt.__version__


def test_local_cpu_opens_onnxruntime() -> None:
    runtime = open_runtime(load_device("local-cpu"))
    assert (runtime.name, runtime.version) == ("onnxruntime", onnxruntime.__version__)


def test_another_machine_or_build_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    message = f"architecture riscv64 for the device 'board'; found: {platform.machine()}"
    with pytest.raises(DeviceError, match=message):
        open_runtime(DeviceSpec("board", machine="riscv64"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="this build of onnxruntime has: cpu; found: 'directml'"):
        open_runtime(DeviceSpec("board", provider="directml"))
