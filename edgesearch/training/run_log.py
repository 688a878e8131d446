"""Training log: one JSON line per epoch, and curves for TensorBoard."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from devices.files import JsonLines, write_bytes
from edgesearch.errors import TrainingError

METRICS = "metrics.jsonl"


class LoggedEpoch(Protocol):
    """The figures of an epoch; its fields are a line of metrics.jsonl."""

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 1."""

    @property
    def monitor(self) -> Mapping[str, float]:
        """Figures whose mean decides which epoch is best; empty if none were computed."""

    def curves(self) -> dict[str, float]:
        """TensorBoard's scalars by name."""


def epochs_done(folder: Path) -> int:
    """Number of epochs that the log in a folder has."""
    try:
        return (folder / METRICS).read_bytes().count(b"\n")
    except OSError:
        return 0


def epoch_lines(folder: Path) -> JsonLines:
    """The lines of the log in a folder."""
    remedy = "Remove this line: only what is shown of its epoch is lost."
    return JsonLines(folder / METRICS, "epochs of a training run", remedy)


class RunLog:
    """metrics.jsonl in a folder, and optionally tensorboard/ with event files.

    `section` is the section of the configuration that asks for TensorBoard.

    Raises:
        TrainingError: TensorBoard is requested and cannot be imported.
    """

    def __init__(self, folder: Path, tensorboard: bool = False, section: str = "pretrain") -> None:
        self.metrics_path = folder / METRICS
        self._lines = epoch_lines(folder)
        self._open_writer = _summary_writer(section) if tensorboard else None
        self._writer: Any = None
        self._scores: dict[int, float] = {}

    def begin(self, epoch: int) -> None:
        """Continue after `epoch` epochs: drop the entries of later ones.

        Raises:
            FileError: A line is damaged; names it.
        """
        self._scores = {}
        if self.metrics_path.exists():
            kept = []
            for number, report in self._lines.read():
                with self._lines.line(number):
                    if report["epoch"] <= epoch:
                        kept.append(json.dumps(report) + "\n")
                        self._note(report["epoch"], report["monitor"])
            write_bytes(self.metrics_path, "".join(kept).encode())
        if self._open_writer is not None:
            folder = self.metrics_path.with_name("tensorboard")
            self._writer = self._open_writer(str(folder), purge_step=epoch + 1)

    def best_epoch(self, epoch: int, monitor: Mapping[str, float]) -> int | None:
        """The epoch with the best mean accuracy of the monitor (ties: the first), if any."""
        self._note(epoch, monitor)
        return max(self._scores, key=lambda number: self._scores[number], default=None)

    def write(self, report: LoggedEpoch) -> None:
        """Add an epoch."""
        self._lines.append(vars(report))
        if self._writer is not None:
            for name, value in report.curves().items():
                self._writer.add_scalar(name, value, report.epoch)
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _note(self, epoch: int, monitor: Mapping[str, float]) -> None:
        if monitor:
            self._scores[epoch] = statistics.fmean(monitor.values())


def _summary_writer(section: str) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(
            f"the package tensorboard for {section}.tensorboard=true",
            str(error),
            f"Install it (pip install tensorboard), or set {section}.tensorboard=false.",
        ) from error
    return SummaryWriter
