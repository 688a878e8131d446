"""Where a training stands, how fast it goes, and what is told of it."""

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
"""Embeddings that are apart by less are the same for all images; fresh networks reach 0.03."""
COLLAPSED_STEPS = 100
"""Steps in a row that show a collapse; an epoch if that is shorter."""
OPENING = 300
"""Steps at the beginning that show none; an epoch if that is shorter."""
LONG_WAIT = 0.2
"""Share of the time from which on waiting for data is worth a remedy."""


@dataclass(frozen=True)
class EpochReport:
    """What one epoch brought; also a line of metrics.jsonl.

    Attributes:
        epoch: Number of the epoch, from 1 on.
        epochs: Number of epochs in all.
        loss_largest: Mean loss of the largest network.
        loss_smallest: Mean loss of the smallest network, None while the largest trains alone.
        loss_random: Mean loss of the random subnets, None without any.
        spread: How far the largest network's embeddings are apart, mean over the steps: 0 if all
            are the same, about 1 if they point in all directions.
        collapsed: Whether the spread of the last steps shows that nothing can be learnt.
        lr: Learning rate of the last step.
        duration_s: Wall time since the epoch was begun or resumed.
        images_per_s: Images trained on in this time, by wall time.
        data_wait: Share of this time in which the images of a batch were waited for, in [0, 1].
        augmenting: Share of this time in which this process made views of them, in [0, 1]; 0 where
            worker processes do.
        replaced_images: Unreadable images that a neighbour stood in for.
        monitor: What the monitor found, empty when it did not run.
        best_epoch: The epoch with the best mean of what the monitor found, up to this one: the one
            whose weights are in best.safetensors. None if the monitor has never run.
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


@dataclass(frozen=True)
class StepReport:
    """Where a run stands after a step.

    Attributes:
        epoch: Number of the epoch, from 1 on.
        epochs: Number of epochs in all.
        step: Steps done in this epoch.
        steps: Steps in an epoch.
        loss: Mean loss of the largest network in this epoch so far.
        images_per_s: Images trained on in this epoch, by wall time.
        remaining_s: Time to the end of the run, at the mean pace since it was begun or resumed.
        spread: As in an epoch's report, of this step.
        collapsed: As in an epoch's report.
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
    """Times an epoch from the moment it is begun or resumed to its last batch.

    Args:
        loader: Gives the batches.
        processes: How many train with as many images each.

    Attributes:
        images: Images handed out so far, in all processes.
        waited_s: Wall time in which there was no batch to train on.
    """

    def __init__(self, loader: ViewLoader, processes: int = 1) -> None:
        self.loader = loader
        self.processes = processes
        self.images = 0
        self.waited_s = 0.0
        self._begun = time.perf_counter()
        self._ended: float | None = None

    def batches(self, epoch: int, first_step: int) -> Iterator[Views]:
        """Hand on the loader's batches, and note how long each was waited for."""
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
        """Images by wall time."""
        return self.images / self.duration_s

    @property
    def data_wait(self) -> float:
        """Share of the wall time that was waited for images, in [0, 1]."""
        return max(0.0, self.waited_s - self.loader.views_s) / self.duration_s

    @property
    def augmenting(self) -> float:
        """Share of the wall time in which this process made views, in [0, 1]."""
        return self.loader.views_s / self.duration_s


@dataclass
class Progress:
    """Where a run stands: epochs done, steps done in this epoch, and sums over these.

    `replaced` counts what this process replaced; in a saved state, what all did.
    `same` counts the last steps, of earlier epochs too, whose embeddings were the same.
    """

    epoch: int = 0
    step: int = 0
    loss_sums: list[float] = field(default_factory=list)
    spread_sum: float = 0.0
    replaced: int = 0
    same: int = 0

    def add(self, result: StepResult) -> None:
        """Count a step."""
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
        """Where the run stands when the epoch is done."""
        return Progress(self.epoch + 1, same=self.same)

    def collapsed(self, steps: int) -> bool:
        """Whether the last steps show a collapse.

        Args:
            steps: Those of an epoch.
        """
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
        """What the epoch brought of which all steps are done.

        Args:
            epochs: Number of epochs in all.
            lr: Learning rate of the last step.
            timer: Has timed the epoch.
            replaced: Unreadable images that others stood in for, in all processes.
            monitor: What the monitor found.
            best_epoch: The best epoch up to this one.
        """
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
    """Is told how a training goes; this one passes on warnings only."""

    def step(self, report: StepReport) -> None:
        """A step is done."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch is done, and its weights and state are kept."""

    def notice(self, message: str) -> None:
        """Something that the user should know and that does not stop the training."""
        warnings.warn(message, stacklevel=2)


class TrainingTeller(Listener):
    """Turns what is told of a training into events; a collapse is told once.

    Args:
        report: Is told what happens.
        workers: Processes that load images; None where views are made in batches, without any.
    """

    def __init__(self, report: Report, workers: int | None) -> None:
        self.report = report
        self.workers = workers
        self.collapse_told = False

    def notice(self, message: str) -> None:
        """See `Listener`."""
        self.report(Event("pretrain", message))

    def step(self, report: StepReport) -> None:
        """See `Listener`; tells of a collapse, too."""
        left = timedelta(seconds=round(report.remaining_s))
        message = (
            f"epoch {report.epoch}, loss {report.loss:.3f}, {report.images_per_s:,.0f} images/s, "
            f"{left} left of the run"
        )
        self.report(Event("pretrain", message, report.step, report.steps, within=True))
        if report.collapsed and not self.collapse_told:
            self.collapse_told = True
            self.notice(
                f"the embeddings of all images have become the same (spread {report.spread:.4f}): "
                "training will not recover. Set pretrain.projector_bn=true, a smaller pretrain.lr "
                "or pretrain.weight_decay, or stronger views"
            )

    def epoch(self, report: EpochReport) -> None:
        """See `Listener`."""
        message = self._epoch_message(report)
        self.report(Event("pretrain", message, report.epoch, report.epochs))

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
