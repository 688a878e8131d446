"""Half precision, by onnxruntime's converter; biases make up for rounded weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesearch.formats.correct_means import correct_means
from edgesearch.formats.precision import Calibration, Precision, Tolerance

if TYPE_CHECKING:
    import onnx


def _convert(
    model: onnx.ModelProto, _: str, is_first: bool, is_last: bool, calibration: Calibration | None
) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    outside = [*model.graph.input] * is_first + [*model.graph.output] * is_last
    converted = convert_float_to_float16(model, keep_io_types=[value.name for value in outside])
    OnnxModel(converted).topological_sort()  # the converter appends its casts
    if calibration is not None:
        correct_means(model, converted, calibration.batches)
    return converted


FP16 = Precision(
    name="fp16",
    value_bytes=2,
    file="subnet.fp16.onnx",
    tolerance=Tolerance(max_difference=5e-2, min_cosine=0.9995),
    number_formats=("fp16",),
    convert=_convert,
)
