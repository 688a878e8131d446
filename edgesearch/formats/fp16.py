"""Half precision: weights and arithmetic in 16 bits, by onnxruntime's converter."""

from __future__ import annotations

from pathlib import Path

from edgesearch.formats.onnx_files import save_model
from edgesearch.formats.precision import Calibration, Precision, Tolerance


def _convert(
    onnx_path: Path,
    path: Path,
    number_format: str,
    *,
    is_first: bool = True,
    is_last: bool = True,
    calibration: Calibration | None = None,
) -> None:
    """Convert to half precision; see `Convert`."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load(onnx_path)
    outside = [*model.graph.input] * is_first + [*model.graph.output] * is_last
    model = convert_float_to_float16(model, keep_io_types=[value.name for value in outside])
    OnnxModel(model).topological_sort()  # the converter puts its casts at the end
    save_model(model, path)


FP16 = Precision(
    name="fp16",
    value_bytes=2,
    file="subnet.fp16.onnx",
    tolerance=Tolerance(max_difference=5e-2, min_cosine=0.9995),
    number_formats=("fp16",),
    convert=_convert,
)
