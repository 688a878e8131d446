"""What is told of a training while it runs."""

from __future__ import annotations

from datetime import timedelta

from edgesearch.events import Event, Report
from edgesearch.pretrain.epoch_report import EpochReport, StepReport

LONG_WAIT = 0.2
"""Share of the time from which on waiting for data is worth a remedy."""


class TrainingTeller:
    """Turns reports of a training into events, and tells of a collapse once.

    Args:
        report: Is told what happens.
        workers: Processes that load images; None where views are made in batches, without any.
    """

    def __init__(self, report: Report, workers: int | None) -> None:
        self.report = report
        self.workers = workers
        self.collapse_told = False

    def notice(self, message: str) -> None:
        """Tell what is not counted."""
        self.report(Event("pretrain", message))

    def step(self, step: StepReport) -> None:
        """Tell of a step, and of a collapse that it shows."""
        left = timedelta(seconds=round(step.remaining_s))
        message = (
            f"epoch {step.epoch}, loss {step.loss:.3f}, {step.images_per_s:,.0f} images/s, "
            f"{left} left of the run"
        )
        self.report(Event("pretrain", message, step.step, step.steps, within=True))
        if step.collapsed and not self.collapse_told:
            self.collapse_told = True
            self.notice(
                f"the embeddings of all images have become the same (spread {step.spread:.4f}): "
                "nothing is learnt so. Set pretrain.projector_bn=true, a smaller pretrain.lr or "
                "pretrain.weight_decay, or stronger views"
            )

    def epoch(self, epoch: EpochReport) -> None:
        """Tell of an epoch."""
        self.report(Event("pretrain", self._epoch_message(epoch), epoch.epoch, epoch.epochs))

    def _epoch_message(self, epoch: EpochReport) -> str:
        parts = [f"loss {epoch.loss_largest:.3f} largest"]
        if epoch.loss_smallest is not None:
            parts.append(f"{epoch.loss_smallest:.3f} smallest")
        parts += [f"{name} {value:.3f}" for name, value in epoch.monitor.items()]
        if epoch.monitor:
            parts.append(f"best in epoch {epoch.best_epoch}")
        parts.append(f"{epoch.images_per_s:,.0f} images/s")
        parts.append(f"{epoch.data_wait:.0%} waiting for data")
        if epoch.data_wait > LONG_WAIT and self.workers is not None:
            parts[-1] += (
                f" (more than {self.workers} pretrain.workers, or for small images of one size "
                "pretrain.augmentation.batched=true, would shorten it)"
            )
        if epoch.augmenting:
            parts.append(f"{epoch.augmenting:.0%} augmenting")
        if epoch.replaced_images:
            parts.append(f"{epoch.replaced_images} unreadable images replaced by others")
        return ", ".join(parts)
