"""From the description of a device to the runtime that runs engines on it."""

from __future__ import annotations

import platform
from collections.abc import Callable

from devices.errors import DeviceError, RuntimeMissingError
from devices.runtimes.onnxruntime_runtime import OnnxRuntime
from devices.runtimes.protocol import Runtime
from devices.runtimes.tensorrt_bindings import load_bindings
from devices.runtimes.tensorrt_runtime import TensorRTRuntime
from devices.spec import PRECISIONS, DeviceSpec

RUNTIMES: dict[str, Callable[[DeviceSpec], Runtime]] = {
    "onnxruntime": lambda spec: OnnxRuntime(spec.threads, spec.provider or "cpu", spec.batch),
    "tensorrt": lambda spec: TensorRTRuntime("tensorrt"),
    "tensorrt-rtx": lambda spec: TensorRTRuntime("tensorrt-rtx"),
}

# onnxruntime computes fp16 in fp32 on processors: slower, not faster.
_ON_PROCESSORS = ("fp32", "int8")


def open_runtime(spec: DeviceSpec) -> Runtime:
    """Return the runtime that a device asks for, on the machine that this runs on.

    Args:
        spec: The device.

    Raises:
        DeviceError: If this machine is of another architecture than the device, there is no such
            runtime, it lacks the precision, or the GPU that it needs is not there.
        RuntimeMissingError: If the runtime's package is not installed.
    """
    if spec.machine not in (None, platform.machine()):
        raise DeviceError(
            f"a machine of architecture {spec.machine} for the device {spec.name!r}",
            platform.machine(),
            "Give the host of the right device, or choose another device (`edgesearch devices`).",
        )
    if spec.runtime not in RUNTIMES:
        raise DeviceError(
            f"a runtime out of {', '.join(RUNTIMES)}", repr(spec.runtime), "Choose one of those."
        )
    if spec.runtime != "onnxruntime" and spec.provider is not None:
        raise DeviceError(
            f"no execution provider for the runtime {spec.runtime}: they are onnxruntime's",
            f"device.provider {spec.provider!r}",
            "Leave device.provider out, or choose device.runtime=onnxruntime.",
        )
    on_processor = spec.runtime == "onnxruntime" and spec.provider in (
        None,
        "cpu",
        "xnnpack",
        "acl",
    )
    precisions = _ON_PROCESSORS if on_processor else PRECISIONS
    if spec.precision not in precisions:
        raise DeviceError(
            f"a precision that {spec.runtime} has there: {', '.join(precisions)}",
            repr(spec.precision),
            "Choose another precision, runtime or provider.",
        )
    return RUNTIMES[spec.runtime](spec)


def installed_version(runtime: str) -> str | None:
    """Return the version of a runtime that is installed here, without reaching for a GPU.

    Args:
        runtime: A key of `RUNTIMES`.

    Returns:
        None if it is not installed, or there is no such runtime.
    """
    if runtime not in RUNTIMES:
        return None
    try:
        if runtime == OnnxRuntime.name:
            return OnnxRuntime().version
        return str(load_bindings(runtime).__version__)
    except RuntimeMissingError:
        return None
