"""Where a run stands, and what an epoch brought."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgesearch.pretrain.epoch_timer import EpochTimer
from edgesearch.pretrain.sandwich import StepResult

COLLAPSED = 0.01
"""Embeddings that are apart by less are the same for all images; fresh networks reach 0.03."""
COLLAPSED_STEPS = 100
"""Steps in a row that show a collapse; an epoch if that is shorter."""
OPENING = 300
"""Steps at the beginning that show none; an epoch if that is shorter."""


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
