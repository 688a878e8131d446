"""Zeros around feature maps as padding of the convolutions that read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def fold_padding(model: onnx.ModelProto) -> None:
    """Replace operations that pad the inputs of convolutions by padding of the convolutions.

    TensorFlow's padding is asymmetric, which torch's convolutions cannot express and those of ONNX
    can. onnxruntime would copy each padded map, and its quantizer would give it a range of its own.
    """
    from onnx import helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        zeros = _zeros_around_maps(pad, constants)
        padded = pad.output[0]
        readers = [node for node in graph.node if padded in node.input]
        are_convolutions = all(node.op_type == "Conv" for node in readers)
        if zeros is None or not are_convolutions or padded in outputs:
            continue
        for conv in readers:
            pads = next((entry for entry in conv.attribute if entry.name == "pads"), None)
            if pads is None:
                pads = helper.make_attribute("pads", [0] * len(zeros))
                conv.attribute.append(pads)
                pads = conv.attribute[-1]
            pads.ints[:] = [own + more for own, more in zip(pads.ints, zeros, strict=True)]
            conv.input[0] = pad.input[0]
        graph.node.remove(pad)
    used = outputs.union(*(node.input for node in graph.node))
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _zeros_around_maps(
    pad: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> list[int] | None:
    """Zeros before rows and columns, then behind them; None if something else is added."""
    from onnx import numpy_helper

    if any(entry.name == "mode" and entry.s != b"constant" for entry in pad.attribute):
        return None
    _, counts, value, axes = (*pad.input, "", "")[:4]
    if axes or counts not in constants or (value and value not in constants):
        return None
    if value and numpy_helper.to_array(constants[value]).any():
        return None
    added = numpy_helper.to_array(constants[counts]).tolist()
    before, behind = added[: len(added) // 2], added[len(added) // 2 :]
    if min(added) < 0 or any(before[:2] + behind[:2]):  # batch and channels
        return None
    return [*before[2:], *behind[2:]]
