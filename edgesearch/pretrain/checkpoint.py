"""The state of a training run as a file."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgesearch.errors import CheckpointError

FORMAT = "edgesearch-training-state-1"


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state atomically: a kill leaves the former or the new one.

    Raises:
        CheckpointError: It cannot be written; the former one is still there.
    """
    partial = path.with_suffix(".partial")
    buffer = io.BytesIO()  # writing to the file itself, torch would hide why it failed
    torch.save({"format": FORMAT, **state}, buffer)
    try:
        with partial.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise CheckpointError(
            f"room to write {path}",
            error.strerror or str(error),
            "Free space or choose another output_dir, then run the same command again.",
        ) from error


def load_state(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Read a state; only tensors and plain values are unpickled.

    Args:
        path: What `save_state` wrote.
        identity: What the state has to hold under "identity".

    Raises:
        CheckpointError: The file is damaged or foreign, or of another run (names the field).
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise ValueError("not a training state")
    except Exception as error:  # damaged bytes make the unpickler raise errors of any kind
        raise CheckpointError(
            f"a training state of edgesearch at {path}",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "Move the file away to start this run anew.",
        ) from error
    for field, value in identity.items():
        found = state["identity"].get(field)
        if found != value:
            raise CheckpointError(
                f"a training state with {field} {value!r} at {path}",
                f"{field} {found!r}",
                "Restore the configuration, or choose another output_dir.",
            )
    return dict(state)
