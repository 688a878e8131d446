"""Progress of a training: position, speed, collapse, and reports."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from edgesearch.events import Event, Report
from edgesearch.pretrain.loader import ViewLoader
from edgesearch.pretrain.method import Views
from edgesearch.pretrain.sandwich import StepResult

COLLAPSED = 0.01
"""A spread below this means equal embeddings; fresh networks reach 0.03."""
COLLAPSED_STEPS = 100
"""Consecutive steps with such a spread that show a collapse; at most an epoch."""
OPENING = 300
"""Initial steps that never show a collapse; at most an epoch."""


@dataclass(frozen=True)
class EpochReport:
    """Metrics of an epoch; also a line of metrics.jsonl.

    Losses are means over the epoch; None for networks that are not trained.

    Attributes:
        epoch: Number of the epoch, from 1, of `epochs`.
        spread: Mean spread of the largest network's embeddings, see `spread_of`.
        lr: Learning rate of the last step.
        duration_s: Wall time since the epoch was started or resumed.
        data_wait: Share of this time spent waiting for images, in [0, 1].
        augmenting: Share of this time that this process spent on views; 0 with worker processes.
        replaced_images: Unreadable images replaced by neighbours.
        monitor: Accuracies of the monitor; empty if it did not run.
        best_epoch: Epoch of best.safetensors, with the monitor's best mean so far, if any.
    """

    epoch: int
    epochs: int
    loss_largest: float
    loss_smallest: float | None
    loss_random: float | None
    spread: float
    collapsed: bool
    lr: float
    duration_s: float
    images_per_s: float
    data_wait: float
    augmenting: float
    replaced_images: int
    monitor: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None

    def curves(self) -> dict[str, float]:
        """See `LoggedEpoch`."""
        values = {
            "loss/largest": self.loss_largest,
            "loss/smallest": self.loss_smallest,
            "loss/random": self.loss_random,
            "spread": self.spread,
            "lr": self.lr,
            "speed/images_per_s": self.images_per_s,
            "speed/data_wait": self.data_wait,
            "speed/augmenting": self.augmenting,
            **{f"monitor/{name}": value for name, value in self.monitor.items()},
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class StepReport:
    """Progress after `step` of `steps` in an epoch (from 1); see `EpochReport`.

    Attributes:
        loss: Mean loss of the largest network in this epoch so far.
        remaining_s: Estimated time to the end of the run, at the mean pace since start or resume.
        spread: Spread of this step's embeddings.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_s: float
    remaining_s: float
    spread: float
    collapsed: bool


class EpochTimer:
    """Times an epoch from its start or resumption to its last batch.

    `images` counts the images of all processes, `waited_s` the wall time spent waiting for batches.
    """

    def __init__(self, loader: ViewLoader, processes: int = 1) -> None:
        self.loader = loader
        self.processes = processes
        self.images = 0
        self.waited_s = 0.0
        self._begun = time.perf_counter()
        self._ended: float | None = None

    def batches(self, epoch: int, first_step: int) -> Iterator[Views]:
        """The loader's batches, with the waits for them recorded."""
        batches = self.loader.batches(epoch, first_step)
        while True:
            asked = time.perf_counter()
            views = next(batches, None)
            got = time.perf_counter()
            self.waited_s += got - asked
            if views is None:
                self._ended = got
                return
            self.images += len(views[0]) * self.processes
            yield views

    @property
    def duration_s(self) -> float:
        """Wall time so far."""
        return (self._ended or time.perf_counter()) - self._begun

    @property
    def images_per_s(self) -> float:
        """Throughput by wall time."""
        return self.images / self.duration_s

    @property
    def data_wait(self) -> float:
        """Share of wall time spent waiting for images, in [0, 1]."""
        return max(0.0, self.waited_s - self.loader.views_s) / self.duration_s

    @property
    def augmenting(self) -> float:
        """Share of wall time that this process spent on views, in [0, 1]."""
        return self.loader.views_s / self.duration_s


@dataclass
class Progress:
    """Position of a run: completed epochs, steps of the current epoch, and sums over these steps.

    `replaced` counts this process's replaced images; in a saved state, those of all processes.
    `same` counts the latest consecutive steps with equal embeddings, across epochs.
    """

    epoch: int = 0
    step: int = 0
    loss_sums: list[float] = field(default_factory=list)
    spread_sum: float = 0.0
    replaced: int = 0
    same: int = 0

    def add(self, result: StepResult) -> None:
        """Add a step."""
        previous = self.loss_sums or [0.0] * len(result.losses)
        self.loss_sums = [a + b for a, b in zip(previous, result.losses, strict=True)]
        self.spread_sum += result.spread
        self.same = self.same + 1 if result.spread < COLLAPSED else 0
        self.step += 1

    @property
    def loss_largest(self) -> float:
        """Mean loss of the largest network in this epoch so far."""
        return self.loss_sums[0] / self.step

    def next_epoch(self) -> Progress:
        """The position at the start of the next epoch."""
        return Progress(self.epoch + 1, same=self.same)

    def collapsed(self, steps: int) -> bool:
        """Whether the latest steps show a collapse, given the steps per epoch."""
        done = self.epoch * steps + self.step
        return done >= min(OPENING, steps) and self.same >= min(COLLAPSED_STEPS, steps)

    def report(
        self,
        *,
        epochs: int,
        lr: float,
        timer: EpochTimer,
        replaced: int,
        monitor: dict[str, float],
        best_epoch: int | None,
    ) -> EpochReport:
        """The report of the completed epoch; see `EpochReport`."""
        _, *others = [total / self.step for total in self.loss_sums]
        smallest, randoms = others[0] if others else None, others[1:]
        return EpochReport(
            epoch=self.epoch + 1,
            epochs=epochs,
            loss_largest=self.loss_largest,
            loss_smallest=smallest,
            loss_random=sum(randoms) / len(randoms) if randoms else None,
            spread=self.spread_sum / self.step,
            collapsed=self.collapsed(self.step),
            lr=lr,
            duration_s=timer.duration_s,
            images_per_s=timer.images_per_s,
            data_wait=timer.data_wait,
            augmenting=timer.augmenting,
            replaced_images=replaced,
            monitor=monitor,
            best_epoch=best_epoch,
        )


class Listener:
    """Receives the progress of a training; this one only passes on warnings."""

    def step(self, report: StepReport) -> None:
        """Called after each step."""

    def epoch(self, report: EpochReport) -> None:
        """Called after each epoch, when weights and state are saved."""

    def notice(self, message: str) -> None:
        """Receives warnings that do not stop the training."""
        warnings.warn(message, stacklevel=2)


class TrainingReporter(Listener):
    """Turns the progress of a training into events; reports a collapse, and advises, once.

    `workers` is None with batched augmentation.
    """

    def __init__(self, report: Report, workers: int | None) -> None:
        self.report = report
        self.workers = workers
        self.collapse_reported = False
        self.advised = False

    def notice(self, message: str) -> None:
        """See `Listener`."""
        self.report(Event("pretrain", message))

    def step(self, report: StepReport) -> None:
        """See `Listener`; also reports a collapse."""
        left = timedelta(seconds=round(report.remaining_s))
        message = (
            f"epoch {report.epoch}, loss {report.loss:.3f}, {report.images_per_s:,.0f} images/s, "
            f"{left} left of the run"
        )
        self.report(Event("pretrain", message, report.step, report.steps, within=True))
        if report.collapsed and not self.collapse_reported:
            self.collapse_reported = True
            self.notice(
                f"embeddings collapsed (spread {report.spread:.4f}): training will not recover. "
                "Set pretrain.projector_bn=true, a smaller pretrain.lr or pretrain.weight_decay, "
                "or stronger augmentation"
            )

    def epoch(self, report: EpochReport) -> None:
        """See `Listener`."""
        parts = [f"loss {report.loss_largest:.3f} largest"]
        if report.loss_smallest is not None:
            parts.append(f"{report.loss_smallest:.3f} smallest")
        parts += [f"{name} {value:.3f}" for name, value in report.monitor.items()]
        if report.monitor:
            parts.append(f"best in epoch {report.best_epoch}")
        parts.append(f"{report.images_per_s:,.0f} images/s")
        parts.append(f"{report.data_wait:.0%} waiting for data")
        if report.data_wait > 0.2 and self.workers is not None and not self.advised:
            self.advised = True
            parts[-1] += (
                f" (more than {self.workers} pretrain.workers, or for small images of one size "
                "pretrain.augmentation.batched=true, would shorten it)"
            )
        if report.augmenting:
            parts.append(f"{report.augmenting:.0%} augmenting")
        if report.replaced_images:
            parts.append(f"{report.replaced_images} unreadable images replaced by others")
        self.report(Event("pretrain", ", ".join(parts), report.epoch, report.epochs))
