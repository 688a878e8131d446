"""From the description of a device to the runtime that runs engines on it."""

from __future__ import annotations

from collections.abc import Callable

from devices.errors import DeviceError
from devices.runtimes.onnxruntime_runtime import OnnxRuntime
from devices.runtimes.protocol import Runtime
from devices.spec import DeviceSpec

RUNTIMES: dict[str, Callable[[DeviceSpec], Runtime]] = {
    "onnxruntime": lambda spec: OnnxRuntime(threads=spec.threads),
}

# fp16 is missing because onnxruntime computes it in fp32 on processors: slower, not faster.
_PRECISIONS: dict[str, tuple[str, ...]] = {"onnxruntime": ("fp32", "int8")}


def open_runtime(spec: DeviceSpec) -> Runtime:
    """Return the runtime that a device asks for, on the machine that this runs on.

    Args:
        spec: The device.

    Raises:
        DeviceError: If there is no such runtime, or it lacks the precision.
        RuntimeMissingError: If the runtime's package is not installed.
    """
    if spec.runtime not in RUNTIMES:
        raise DeviceError(
            f"a runtime out of {', '.join(RUNTIMES)}", repr(spec.runtime), "Choose one of those."
        )
    if spec.precision not in _PRECISIONS[spec.runtime]:
        raise DeviceError(
            f"a precision that {spec.runtime} has: {', '.join(_PRECISIONS[spec.runtime])}",
            repr(spec.precision),
            "Choose another precision or runtime.",
        )
    return RUNTIMES[spec.runtime](spec)
