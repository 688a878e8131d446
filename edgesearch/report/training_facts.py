"""The training of a supernet, finished or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgesearch.run.context import RunContext
from edgesearch.run.stage import read_record, worked_s
from edgesearch.supernet.weights import Origin, read_origin
from edgesearch.training.run_log import epoch_lines


@dataclass(frozen=True)
class TrainingFacts:
    """A training.

    Attributes:
        epochs: The fields of `EpochReport` for each finished epoch.
        wanted: Number of epochs that were asked for.
        origin: The public weights that it began with, if any.
    """

    method: str
    epochs: tuple[dict[str, Any], ...]
    wanted: int
    finished: bool
    seconds: float
    origin: Origin | None


def read_training(run: RunContext) -> TrainingFacts | None:
    """What is known of a training; None if it has not begun.

    Raises:
        UserError: The log is damaged.
    """
    folder = run.files.supernet
    record = read_record(folder)
    if record is None:
        return None
    log = epoch_lines(folder)
    epochs = [values for _, values in log.read()] if log.path.exists() else []
    made_with = record["settings"]
    return TrainingFacts(
        method=made_with["pretrain.method"],
        epochs=tuple(epochs),
        wanted=made_with["pretrain.epochs"],
        finished=bool(record["finished"]),
        seconds=worked_s(folder, record),
        origin=read_origin(run.files.weights) if run.files.weights.exists() else None,
    )
