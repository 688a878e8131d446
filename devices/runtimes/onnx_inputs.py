"""What a model takes, read on this machine; and the same model for one size of batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from devices.errors import EngineError
from devices.runtimes.onnx_layers import explain_failure


def read_inputs(path: Path) -> dict[str, tuple[int | str, ...]]:
    """Read the inputs of an `.onnx` or `.ort` file.

    Args:
        path: The file.

    Returns:
        Shapes by name; an open dimension is a text, its name or "?".

    Raises:
        EngineError: If onnxruntime cannot read the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=providers, enable_fallback=0
        )
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise EngineError(
            f"{path} must be a whole model that onnxruntime {onnxruntime.__version__} can read",
            explain_failure(error, path, providers),
            "Export the model again.",
        ) from error
    return {node.name: tuple(map(_size, node.shape)) for node in session.get_inputs()}


def fix_batch(onnx_path: Path, fixed_path: Path, batch: int) -> None:
    """Write a model whose first dimensions are open for one size of batch.

    Args:
        onnx_path: The model.
        fixed_path: Gets the model with fixed shapes.
        batch: What open first dimensions become.

    Raises:
        EngineError: If shapes are open in another dimension.
    """
    import onnx
    from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_dim_param_fixed

    model = onnx.load(onnx_path)
    for name, shape in read_inputs(onnx_path).items():
        if any(isinstance(size, str) for size in shape[1:]):
            raise EngineError(
                f"the inputs of {onnx_path} must be open in their first dimension only",
                f"{name!r} of shape {list(shape)}",
                "Export the model for one size of images.",
            )
        if shape and isinstance(shape[0], str):
            make_dim_param_fixed(model.graph, shape[0], batch)
            for value in model.graph.input:
                if value.name == name:
                    value.type.tensor_type.shape.dim[0].dim_value = batch
    fix_output_shapes(model)
    onnx.save(model, fixed_path)


def _size(size: Any) -> int | str:
    return size if isinstance(size, int) else str(size or "?")
