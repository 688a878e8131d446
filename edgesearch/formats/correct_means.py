"""Biases of a converted network that keep the mean of each channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from devices.runtimes.onnxruntime_session import open_session, session_options

if TYPE_CHECKING:
    import onnx

MOST_BATCHES = 128
MOST_BYTES = 1 << 28
"""Bound of one layer's outputs for all batches."""
_WEIGHTED = ("Conv", "Gemm")
_BIAS = 2
"""Place of the bias among their inputs."""


def correct_means(
    model: onnx.ModelProto, converted: onnx.ModelProto, batches: Sequence[np.ndarray]
) -> None:
    """Change the biases of a converted model so that its channels have the means of `model`.

    A rounded weight shifts its channel by the error times the mean of its input, which is far from
    0 behind a ReLU; a rounded bias shifts it, too. Such shifts are alike for all images and add up
    from layer to layer. Here each layer is corrected for its own shift and for what is left of
    those before it. The network gets no further operation.

    Nodes have the same names in both models; `batches` are inputs (N, C, H, W).

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
    (ICCV 2019), section 4.2 and appendix D.
    """
    largest = max(outputs[0].nbytes for _, outputs in _in_turn(model, batches[:1]))
    batches = batches[: max(1, min(MOST_BATCHES, MOST_BYTES // largest))]
    means = {
        node.name: _means(outputs)
        for node, outputs in _in_turn(model, batches)
        if node.op_type in _WEIGHTED
    }
    for node, outputs in _in_turn(converted, batches):
        if node.name in means and len(node.input) > _BIAS:
            added = _add_to_bias(converted, node, means[node.name] - _means(outputs))
            shape = [1, -1] + [1] * (outputs[0].ndim - 2)
            outputs[:] = [(each + added.reshape(shape)).astype(each.dtype) for each in outputs]


def _in_turn(
    model: onnx.ModelProto, batches: Sequence[np.ndarray]
) -> Iterator[tuple[onnx.NodeProto, list[np.ndarray]]]:
    """Run a model node by node.

    Yields each node with its first output for each batch; later nodes read what is in that list.
    """
    from onnx import helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    values: dict[str, list[np.ndarray]] = {model.graph.input[0].name: list(batches)}
    left = Counter(name for node in model.graph.node for name in node.input)
    for node in model.graph.node:
        given = [name for name in dict.fromkeys(node.input) if name in values]
        kinds = [helper.np_dtype_to_tensor_dtype(values[name][0].dtype) for name in given]
        graph = helper.make_graph(
            [node],
            "node",
            [
                helper.make_tensor_value_info(name, kind, None)
                for name, kind in zip(given, kinds, strict=True)
            ],
            [helper.make_empty_tensor_value_info(name) for name in node.output],
            [constants[name] for name in dict.fromkeys(node.input) if name in constants],
        )
        alone = helper.make_model(graph, opset_imports=model.opset_import)
        alone.ir_version = model.ir_version
        session = open_session(alone.SerializeToString(), session_options())
        runs = [
            session.run(None, {name: values[name][batch] for name in given})
            for batch in range(len(batches))
        ]
        for place, name in enumerate(node.output):
            values[name] = [outputs[place] for outputs in runs]
        yield node, values[node.output[0]]
        left.subtract(node.input)
        for name in given:
            if not left[name]:
                del values[name]


def _means(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Means of channels (C,) of outputs (N, C, …)."""
    axes = (0, *range(2, outputs[0].ndim))
    means: np.ndarray = np.mean([each.mean(axes, dtype=np.float64) for each in outputs], axis=0)
    return means


def _add_to_bias(model: onnx.ModelProto, node: onnx.NodeProto, change: np.ndarray) -> np.ndarray:
    """Add to a layer's bias (C,), as far as its type can tell; returns what was added."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    reader, place, scale = node, _BIAS, np.ones(1)
    if node.input[_BIAS] not in constants:  # integers that a DequantizeLinear scales
        (reader,) = (each for each in model.graph.node if node.input[_BIAS] in each.output)
        place, scale = 0, numpy_helper.to_array(constants[reader.input[1]]).astype(np.float64)
    tensor = constants[reader.input[place]]
    before = numpy_helper.to_array(tensor)
    wanted = before + change / scale
    after = (np.rint(wanted) if before.dtype.kind == "i" else wanted).astype(before.dtype)
    if sum(list(each.input).count(tensor.name) for each in model.graph.node) > 1:
        tensor = model.graph.initializer.add()
        reader.input[place] = f"{node.name}_bias"
    tensor.CopyFrom(numpy_helper.from_array(after, reader.input[place]))
    return (after.astype(np.float64) - before) * scale
