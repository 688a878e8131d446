"""Writes ONNX files atomically, and silences the libraries that make them."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgesearch.errors import ExportError

if TYPE_CHECKING:
    import onnx


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, atomically and to the disk; two processes that write the same one do no harm.

    Raises:
        ExportError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(model.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ExportError(
            f"a writable place for {path}", str(error), "Free space or choose another place."
        ) from error


def is_whole_model(path: Path) -> bool:
    """Whether a file is a model, and neither cut off nor spoilt in a way that shows."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        onnx.checker.check_model(onnx.load(path))
    except (DecodeError, onnx.checker.ValidationError, OSError):
        return False
    return True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters and quantizers talk about themselves on every channel they have."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
