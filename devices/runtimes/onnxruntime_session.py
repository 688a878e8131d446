"""Sessions of onnxruntime without logging or fallback to another provider."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.errors import RuntimeMissingError, lack_of_memory

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
_FIRST_FOR_NUMPY_2 = (1, 19)
"""Earlier versions end the process when they are imported with numpy 2."""


def import_onnxruntime() -> Any:
    """Import the module.

    Raises:
        RuntimeMissingError: If it is not installed, or does not fit the installed numpy.
    """
    if "onnxruntime" not in sys.modules:
        _check_numpy()
    try:
        import onnxruntime
    except Exception as error:  # a broken installation may raise anything
        found = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise RuntimeMissingError(
            "the package onnxruntime", found, "Install it: pip install --upgrade onnxruntime"
        ) from error
    return onnxruntime


def _check_numpy() -> None:
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None or np.__version__.startswith("1."):
        return
    text = Path(spec.origin).read_text(encoding="utf-8", errors="replace")
    version = re.search(r"""__version__ = ["']((\d+)\.(\d+)[^"']*)""", text)
    if version and (int(version[2]), int(version[3])) < _FIRST_FOR_NUMPY_2:
        first = ".".join(map(str, _FIRST_FOR_NUMPY_2))
        raise RuntimeMissingError(
            f"onnxruntime {first} or newer for numpy {np.__version__}",
            version[1],
            "Install what fits: pip install --upgrade onnxruntime, or pip install 'numpy<2'.",
        )


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
    """What to do about a model that does not load or run: `otherwise`, unless it is known."""
    if lack_of_memory(error):
        return "Stop other programs there, or choose a smaller batch, resolution or network."
    too_new = ("Unsupported model IR version", "official released onnx opset")
    if any(words in str(error) for words in too_new):
        return "Install a newer onnxruntime, or write the model with an older opset and IR version."
    return otherwise
