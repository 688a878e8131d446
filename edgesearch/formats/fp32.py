"""Single precision: what torch exports."""

from __future__ import annotations

from edgesearch.formats.precision import Precision, Tolerance

FP32 = Precision(
    name="fp32",
    value_bytes=4,
    file="subnet.onnx",
    tolerance=Tolerance(max_difference=1e-3, min_cosine=0.99999),
    number_formats=("fp32",),
    convert=None,
)
