"""What a run writes about itself: one line for each epoch."""

from __future__ import annotations

import json
import os
from pathlib import Path

from edgesearch.pretrain.epoch_report import EpochReport


class RunLog:
    """The log of a training run.

    Args:
        folder: Gets metrics.jsonl, one line of JSON for each epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.metrics_path = folder / "metrics.jsonl"

    def begin(self, epoch: int) -> None:
        """Go on after `epoch` whole epochs: forget lines of epochs that will be run again."""
        if not self.metrics_path.exists():
            return
        lines = self.metrics_path.read_text(encoding="utf-8").splitlines(keepends=True)
        partial = self.metrics_path.with_suffix(".partial")
        partial.write_text("".join(lines[:epoch]), encoding="utf-8")
        os.replace(partial, self.metrics_path)

    def write(self, report: EpochReport) -> None:
        """Add an epoch."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(vars(report)) + "\n")
