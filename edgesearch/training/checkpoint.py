"""Training states: the current one and the previous one."""

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
from devices.values import in_yaml
from edgesearch.errors import CheckpointError, lack_of_memory

FORMAT = "edgesearch-training-state-1"


def previous(path: Path) -> Path:
    """Path of the state before the one at `path`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def has_state(path: Path) -> bool:
    """Whether `load_state` can find a file."""
    return path.exists() or previous(path).exists()


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state and keep the previous one; a kill at any moment leaves one intact."""
    buffer = io.BytesIO()  # torch hides the reason if it fails to write a file
    torch.save({"format": FORMAT, **state}, buffer)
    write_bytes(path, buffer.getbuffer(), keep_former=previous(path))


def find_state(path: Path) -> tuple[dict[str, Any], bool]:
    """A state, or the previous one, and whether the newest is damaged; changes nothing.

    Raises:
        CheckpointError: Both files are damaged or foreign.
    """
    try:
        return _read(path), False
    except CheckpointError as error:
        try:
            state = _read(previous(path))
        except CheckpointError:
            raise error from None
    return state, path.exists()  # a missing file means a kill between two renames


def load_state(
    path: Path, identity: Mapping[str, Any], notice: Callable[[str], None] = warnings.warn
) -> dict[str, Any]:
    """Read a state, or the previous one, with a notice, if it is damaged.

    Raises:
        CheckpointError: Both files are damaged or foreign, or the state's "identity" is of another
            run (names the field).
    """
    state, damaged = find_state(path)
    if damaged:
        place = _place(**state["progress"])
        notice(f"{path} is damaged: continuing from the previous state, {place}")
    for field, value in identity.items():
        found = state["identity"].get(field)
        if found != value:
            raise CheckpointError(
                f"a training state with {field} {in_yaml(value)} at {path}",
                f"{field} {in_yaml(found)}",
                "Restore the configuration, or choose another output_dir.",
            )
    if damaged:  # otherwise `save_state` would overwrite the intact one with it
        with contextlib.suppress(OSError):
            os.replace(path, path.with_suffix(".damaged"))
    return state


def _place(epoch: int, step: int, **_: Any) -> str:
    """Position of a run in words, given its progress."""
    return f"after step {step} of epoch {epoch + 1}" if step else f"after epoch {epoch}"


def _read(path: Path) -> dict[str, Any]:
    """Read a state; only tensors and plain values are unpickled."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise ValueError("not a training state")
    except Exception as error:  # the unpickler raises many types on damaged files
        if lack_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        if isinstance(error, pickle.UnpicklingError):  # torch advises to disable its check
            reason = "damaged, or with more in it than tensors and plain values"
        raise CheckpointError(
            f"a training state of edgesearch at {path}",
            f"{type(error).__name__}: {reason}",
            "Move the folder's .pt files away to restart this run.",
        ) from error
    return dict(state)
