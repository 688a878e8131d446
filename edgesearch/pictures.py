"""Pictures of results, independent of how the user's matplotlib is configured."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from devices.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextlib.contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure to draw on, which is then written to a PNG file.

    Neither a backend in MPLBACKEND (a notebook's may be missing here) nor a `matplotlibrc` matters,
    and a `$` in a name begins no formula.

    Args:
        path: The file.
        width: Width in inches.
        height: Height in inches.

    Raises:
        FileError: The file cannot be written.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    is_new = "matplotlib" not in sys.modules
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend is not None and is_new:
        with contextlib.suppress(ValueError):  # it is missing here, and none is needed
            matplotlib.rcParams["backend"] = backend
    with matplotlib.style.context(["default", {"text.parse_math": False}]):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=150)
    write_bytes(path, content.getvalue())
