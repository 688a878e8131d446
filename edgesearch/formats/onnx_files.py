"""Atomic writing of ONNX files, and silencing of the libraries that make them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from devices.files import replacing
from devices.runtimes.onnxruntime_session import import_onnxruntime

if TYPE_CHECKING:
    import onnx

_ERRORS = 3
"""onnxruntime's level of severity from which messages are printed."""


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model atomically; safe if two processes write the same file.

    The file gets the lowest IR version that its opsets allow, since older runtimes refuse newer
    ones whatever the file holds.

    Raises:
        FileError: It cannot be written.
    """
    from onnx.helper import find_min_ir_version_for

    model.ir_version = find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    with replacing(path, shared=True) as partial:
        partial.write_bytes(model.SerializeToString())


def is_whole_model(path: Path) -> bool:
    """Whether a file is a complete, valid model."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        onnx.checker.check_model(onnx.load(path))
    except (DecodeError, onnx.checker.ValidationError, OSError):
        return False
    return True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence logging, warnings and printing of exporters and quantizers."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    # The quantizer's own sessions warn through onnxruntime's logger, which prints past Python.
    import_onnxruntime().set_default_logger_severity(_ERRORS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
