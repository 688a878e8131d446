"""The inputs of a model, and fixing its open batch dimension."""

from __future__ import annotations

from pathlib import Path

from devices.errors import EngineError
from devices.runtimes.onnx_layers import explain_failure
from devices.runtimes.onnxruntime_session import (
    CPU,
    import_onnxruntime,
    open_session,
    remedy_of,
    session_options,
)


def read_inputs(path: Path) -> dict[str, tuple[int | str, ...]]:
    """Input shapes of an `.onnx` or `.ort` file, by name; an open dimension is its name or "?".

    Raises:
        EngineError: If onnxruntime cannot read the file.
    """
    try:
        session = open_session(path, session_options("ORT_DISABLE_ALL"))
    except Exception as error:
        version = import_onnxruntime().__version__
        raise EngineError(
            f"{path} must be a whole model that onnxruntime {version} can read",
            explain_failure(error, path, [CPU]),
            remedy_of(error, "Export the model again."),
        ) from error
    return {
        node.name: tuple(size if isinstance(size, int) else str(size or "?") for size in node.shape)
        for node in session.get_inputs()
    }


def fix_batch(onnx_path: Path, fixed_path: Path, batch: int) -> None:
    """Write a copy of a model with its open first dimensions set to a batch size.

    Raises:
        EngineError: If another dimension is open.
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
