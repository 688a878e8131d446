"""Names the layer of a network that a runtime cannot run."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from devices.runtimes.onnxruntime_session import first_line, open_session, session_options

if TYPE_CHECKING:
    import onnx

_SCOPES = "pkg.torch.onnx.name_scopes"
_ABOUT_OPERATORS = ("NOT_IMPLEMENTED", "is not a registered function/op", "No Op registered")
"""Text in onnxruntime's messages about a missing operator."""


def modules_of(node: onnx.NodeProto) -> list[str]:
    """Modules of the exported network that contain a node, outermost first."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            return [name for name in ast.literal_eval(entry.value)[:-1] if name]
    return []


def layer_of(node: onnx.NodeProto) -> str:
    """The innermost module of a node; without one, the node's or its output's name."""
    return (modules_of(node) or [node.name or node.output[0]])[-1]


def name_layer(onnx_path: Path, operator: str, node_name: str) -> str:
    """Describe the layer of a node, as in "the operator Conv of the layer layer1.0.conv1".

    Args:
        onnx_path: The model.
        operator: Type of the node, such as "Conv".
        node_name: Name of the node; if empty, the first node of that type is taken.

    Returns:
        The description. Without the package onnx, or for a node inside a function, the layer is
        the node's name.
    """
    layer = node_name
    model = _load(onnx_path)
    for node in () if model is None else model.graph.node:
        if node.name == node_name if node_name else node.op_type == operator:
            layer = layer_of(node)
            break
    return f"the operator {operator} of the layer {layer or '(without a name)'}"


def explain_failure(error: Exception, model: Path | onnx.ModelProto, providers: list[str]) -> str:
    """The message of an onnxruntime error, after operator and layer if it lacks an operator.

    Args:
        error: The error of loading a model.
        model: The model or its file. Nothing is added for other files than `.onnx`, or without
            the package onnx.
        providers: The execution providers it was loaded with.
    """
    said = first_line(error)
    if not any(words in said for words in _ABOUT_OPERATORS):
        return said
    whole = _load(model) if isinstance(model, Path) else model
    node = None if whole is None else _first_that_fails(whole, providers)
    if node is None:
        return said
    return f"the operator {node.op_type} of the layer {layer_of(node)}: {said}"


def _load(path: Path) -> onnx.ModelProto | None:
    """The model of an `.onnx` file; None if it cannot be read."""
    if path.suffix != ".onnx":
        return None
    try:
        import onnx

        return onnx.load(path)
    except Exception:  # onnx is missing or the model invalid: the error stays unexplained
        return None


def _first_that_fails(model: onnx.ModelProto, providers: list[str]) -> onnx.NodeProto | None:
    """The first node that onnxruntime cannot load on its own.

    onnxruntime's messages name the failing node only sometimes, and not the file's node if that
    was decomposed.
    """
    import onnx

    try:
        model = onnx.shape_inference.infer_shapes(model)
    except Exception:  # the error stays unexplained
        return None
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    types = {value.name: value for value in values if value.type.HasField("tensor_type")}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        names = [name for name in node.input if name]
        has_graph = any(attribute.HasField("g") for attribute in node.attribute)
        if has_graph or any(name not in types and name not in weights for name in names):
            continue
        alone = onnx.helper.make_model(
            onnx.helper.make_graph(
                [node],
                "alone",
                [types[name] for name in dict.fromkeys(names) if name not in weights],
                [onnx.ValueInfoProto(name=name) for name in node.output if name],
                [weights[name] for name in dict.fromkeys(names) if name in weights],
            ),
            opset_imports=model.opset_import,
            ir_version=model.ir_version,
            functions=model.functions,
        )
        if not _loads(alone.SerializeToString(), providers):
            return node
    return None


def _loads(model: bytes, providers: list[str]) -> bool:
    try:
        open_session(model, session_options(), providers)
    except Exception as error:
        return not any(words in str(error) for words in _ABOUT_OPERATORS)
    return True
