"""int8 weights and activations, by onnxruntime's quantizer.

The files have QuantizeLinear and DequantizeLinear pairs around each operation (QDQ), which every
runtime fuses into its own integer operations.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devices import explain_failure
from edgesearch.errors import ExportError
from edgesearch.formats.correct_means import correct_means
from edgesearch.formats.onnx_files import quiet
from edgesearch.formats.precision import Calibration, Precision, Tolerance

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class _Scheme:
    """Quantization of a number format: signs of activations, 7-bit weights, and TensorRT's format.

    `symmetric`: no zero points, no quantized biases, and only inputs of convolutions.
    """

    unsigned: bool
    reduced: bool = False
    symmetric: bool = False


_SCHEMES = {
    "u8s8": _Scheme(unsigned=True),
    "u8s8-reduced": _Scheme(unsigned=True, reduced=True),
    "s8s8": _Scheme(unsigned=False),
    "s8s8-symmetric": _Scheme(unsigned=False, symmetric=True),
}
"""By number format, named after the types of activations and weights."""

_BATCHES_AT_ONCE = 4
"""Batches whose activations are in memory while histograms are computed."""


def _convert(
    model: onnx.ModelProto,
    number_format: str,
    is_first: bool,
    is_last: bool,
    calibration: Calibration | None,
) -> onnx.ModelProto:
    """Static quantization, per output channel of a weight, that keeps the means of channels."""
    import onnx

    batches = None if calibration is None else calibration.batches
    if calibration is None:
        shape = [dimension.dim_value for dimension in _sizes(model.graph.input[0])]
        random = np.random.default_rng(0)
        calibration = Calibration(
            [random.standard_normal(shape).astype(np.float32) for _ in range(2)]
        )
    intact = onnx.ModelProto()
    intact.CopyFrom(model)  # the quantizer moves its weights into a file
    quantized = _quantize(model, number_format, calibration)
    if batches is not None:
        correct_means(intact, quantized, batches)
    kept = {entry.key for entry in quantized.metadata_props}  # some versions copy them
    quantized.metadata_props.extend(e for e in model.metadata_props if e.key not in kept)
    # With symmetric quantization, values between blocks are not quantized.
    passes_integers = not _SCHEMES[number_format].symmetric
    if passes_integers and not is_first:
        _take_integers(quantized, number_format)
    if passes_integers and not is_last:
        _give_integers(quantized, number_format)
    return quantized


def _quantize(
    model: onnx.ModelProto, number_format: str, calibration: Calibration
) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    options: dict[str, Any] = {}
    inputs = calibration.batches
    if calibration.method != "minmax":
        # Applies to histogram methods too, despite its name.
        options["CalibStridedMinMax"] = math.gcd(len(inputs), _BATCHES_AT_ONCE)
    scheme = _SCHEMES[number_format]
    kinds = ["Conv", "Gemm"]
    # TensorRT fuses a convolution with what follows only if its output is not quantized.
    symmetric = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": kinds,
    }
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "quantized.onnx"
        try:
            quantize_static(
                model,
                path,
                _Reader(model.graph.input[0].name, inputs),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8 if scheme.unsigned else QuantType.QInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=scheme.reduced,
                op_types_to_quantize=kinds if scheme.symmetric else None,
                calibrate_method=methods[calibration.method],
                extra_options={**options, **(symmetric if scheme.symmetric else {})},
            )
            return onnx.load(path)
        except Exception as error:  # the quantizer's errors have no common base class
            raise ExportError(
                f"a network that onnxruntime can quantize to {number_format}",
                explain_failure(error, model, ["CPUExecutionProvider"]),
                "Choose another precision, or check the free space of the temporary folder.",
            ) from error


class _Reader:
    """Yields calibration inputs to the quantizer: all, or a range."""

    def __init__(self, name: str, inputs: Sequence[np.ndarray]) -> None:
        self._name = name
        self._all = inputs
        self._inputs: Iterator[np.ndarray] = iter(inputs)

    def __len__(self) -> int:
        return len(self._all)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Restart with a part of the inputs."""
        self._inputs = iter(self._all[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        found = next(self._inputs, None)
        return None if found is None else {self._name: found}


def _take_integers(model: onnx.ModelProto, number_format: str) -> None:
    """Let a quantized block take the integers of the previous block.

    A block whose first operation runs in fp32 takes them too.
    """
    from onnx import helper

    graph, taken = model.graph, model.graph.input[0]
    name = f"{taken.name}_QuantizeLinear_Output"
    quantizers = [node for node in graph.node if name in node.output]
    if quantizers:
        graph.node.remove(quantizers[0])
    else:
        given = [name, *_add_scale(graph, taken.name, number_format)]
        graph.node.insert(0, helper.make_node("DequantizeLinear", given, [taken.name]))
    graph.input.remove(taken)
    graph.input.append(_integer_tensor(name, taken, number_format))


def _give_integers(model: onnx.ModelProto, number_format: str) -> None:
    """Let a quantized block return integers to the next block.

    A block whose last operation runs in fp32, as hard-swish does, returns them too.
    """
    from onnx import helper

    graph, given = model.graph, model.graph.output[0]
    name = f"{given.name}_QuantizeLinear_Output"
    if not any(name in node.output for node in graph.node):
        taken = [given.name, *_add_scale(graph, given.name, number_format)]
        graph.node.append(helper.make_node("QuantizeLinear", taken, [name]))
    for node in [node for node in graph.node if given.name in node.output and name in node.input]:
        graph.node.remove(node)
    graph.output.remove(given)
    graph.output.append(_integer_tensor(name, given, number_format))


def _add_scale(graph: Any, name: str, number_format: str) -> tuple[str, str]:
    """Add some scale and zero point of a value; their names."""
    from onnx import helper

    scale, zero = f"{name}_scale", f"{name}_zero_point"
    graph.initializer.append(helper.make_tensor(scale, _FLOAT, [], [0.05]))
    graph.initializer.append(helper.make_tensor(zero, _integer_type(number_format), [], [0]))
    return scale, zero


_FLOAT, _UINT8, _INT8 = 1, 2, 3
"""Data types of `onnx.TensorProto`."""


def _integer_type(number_format: str) -> int:
    return _UINT8 if _SCHEMES[number_format].unsigned else _INT8


def _integer_tensor(name: str, like: Any, number_format: str) -> Any:
    from onnx import helper

    shape = [dimension.dim_value for dimension in _sizes(like)]
    return helper.make_tensor_value_info(name, _integer_type(number_format), shape)


def _sizes(tensor: Any) -> Any:
    return tensor.type.tensor_type.shape.dim


INT8 = Precision(
    name="int8",
    value_bytes=1,
    file="subnet.int8.onnx",
    tolerance=Tolerance(max_difference=0.5, min_cosine=0.98, max_knn_loss=0.01),
    number_formats=tuple(_SCHEMES),
    convert=_convert,
    needs_calibration=True,
)
