"""The state of a training run as a file, and the state before it as another."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from devices.files import write_bytes
from edgesearch.errors import CheckpointError

FORMAT = "edgesearch-training-state-1"


def previous(path: Path) -> Path:
    """Where the state before the one at `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def has_state(path: Path) -> bool:
    """Whether `load_state` has something to read."""
    return path.exists() or previous(path).exists()


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state and keep the one before; a kill at any moment leaves a whole one.

    Raises:
        FileError: It cannot be written; the former one is still there.
    """
    buffer = io.BytesIO()  # writing to the file itself, torch would hide why it failed
    torch.save({"format": FORMAT, **state}, buffer)
    write_bytes(path, buffer.getbuffer(), keep_former=previous(path))


def load_state(
    path: Path, identity: Mapping[str, Any], notice: Callable[[str], None] = warnings.warn
) -> dict[str, Any]:
    """Read a state, or the one before if this one is damaged.

    Args:
        path: What `save_state` wrote.
        identity: What the state has to hold under "identity".
        notice: Is told of a damaged state.

    Raises:
        CheckpointError: Both files are damaged or foreign, or the state is of another run (names
            the field).
    """
    damaged = False
    try:
        state = _read(path)
    except CheckpointError as error:
        try:
            state = _read(previous(path))
        except CheckpointError:
            raise error from None
        damaged = path.exists()  # a kill between the two renamings loses nothing
        if damaged:
            place = _place(**state["progress"])
            notice(f"{path} is damaged: going on from the state before it, that {place}")
    for field, value in identity.items():
        found = state["identity"].get(field)
        if found != value:
            raise CheckpointError(
                f"a training state with {field} {value!r} at {path}",
                f"{field} {found!r}",
                "Restore the configuration, or choose another output_dir.",
            )
    if damaged:  # the next `save_state` would put it in the place of the one that is whole
        with contextlib.suppress(OSError):
            os.replace(path, path.with_suffix(".damaged"))
    return state


def _place(epoch: int, step: int, **_: Any) -> str:
    """Where a run stood, given its progress: whole epochs, and steps of the next one."""
    return f"after step {step} of epoch {epoch + 1}" if step else f"after epoch {epoch}"


def _read(path: Path) -> dict[str, Any]:
    """A state; only tensors and plain values are unpickled."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise ValueError("not a training state")
    except Exception as error:  # damaged bytes make the unpickler raise errors of any kind
        reason = str(error).partition("\n")[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's reason is advice against its check
            reason = "damaged, or with more in it than tensors and plain values"
        raise CheckpointError(
            f"a training state of edgesearch at {path}",
            f"{type(error).__name__}: {reason}",
            "Move the folder's .pt files away to start this run anew.",
        ) from error
    return dict(state)
