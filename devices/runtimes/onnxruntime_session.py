"""Sessions of onnxruntime without logging or fallback to another provider."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.errors import RuntimeMissingError

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"


def import_onnxruntime() -> Any:
    """Import the module.

    Raises:
        RuntimeMissingError: If it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissingError(
            "the package onnxruntime", str(error), "Install it: pip install onnxruntime"
        ) from error
    return onnxruntime


def session_options(optimization: str = "ORT_ENABLE_ALL") -> Any:
    """Options that log nothing, since errors are raised.

    Args:
        optimization: Name of a `GraphOptimizationLevel`.
    """
    module = import_onnxruntime()
    options = module.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(module.GraphOptimizationLevel, optimization)
    return options


def open_session(
    model: Path | bytes, options: Any, providers: Sequence[str] = (CPU,)
) -> onnxruntime.InferenceSession:
    """Load a model. Raises onnxruntime's own errors, which share no base class."""
    source = str(model) if isinstance(model, Path) else model
    return import_onnxruntime().InferenceSession(
        source, options, providers=list(providers), enable_fallback=0
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def remedy_of(error: Exception, otherwise: str) -> str:
    """What to do about a model that does not load: `otherwise`, unless the runtime is too old."""
    too_new = ("Unsupported model IR version", "official released onnx opset")
    if any(words in str(error) for words in too_new):
        return "Install a newer onnxruntime, or write the model with an older opset and IR version."
    return otherwise
