"""All precisions."""

from __future__ import annotations

from devices.errors import UnknownDeviceError
from devices.spec import DeviceSpec
from edgesearch.errors import ExportError
from edgesearch.formats.fp16 import FP16
from edgesearch.formats.fp32 import FP32
from edgesearch.formats.int8 import INT8
from edgesearch.formats.precision import Precision

PRECISIONS: dict[str, Precision] = {"fp32": FP32, "fp16": FP16, "int8": INT8}


def precision_of(device: DeviceSpec) -> Precision:
    """The precision of a device.

    Raises:
        UnknownDeviceError: There is no such precision.
    """
    if device.precision not in PRECISIONS:
        raise UnknownDeviceError(
            f"field 'precision' of a device must be one of {', '.join(PRECISIONS)}",
            repr(device.precision),
            "Change 'precision'.",
        )
    return PRECISIONS[device.precision]


def precision_with(number_format: str) -> Precision:
    """The precision that a number format belongs to.

    Raises:
        ExportError: It belongs to none.
    """
    for precision in PRECISIONS.values():
        if number_format in precision.number_formats:
            return precision
    known = [form for precision in PRECISIONS.values() for form in precision.number_formats]
    raise ExportError(
        f"a number format among {', '.join(known)}",
        repr(number_format),
        "Choose another precision or runtime.",
    )
