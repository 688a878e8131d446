"""Where a run stands, and what an epoch brought."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgesearch.pretrain.sandwich import StepResult

COLLAPSED = 0.01
"""Embeddings that are apart by less are the same for all images; fresh networks reach 0.03."""


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
        collapsed: Whether the spread shows, after the first epoch, that nothing can be learnt.
        lr: Learning rate of the last step.
        duration_s: Wall time since the epoch was begun or resumed.
        images_per_s: Images trained on in this time, by wall time.
        replaced_images: Unreadable images that a neighbour stood in for.
        monitor: What the monitor found, empty when it did not run.
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
    replaced_images: int
    monitor: dict[str, float] = field(default_factory=dict)


@dataclass
class Progress:
    """Where a run stands: epochs done, steps done in this epoch, and sums over these."""

    epoch: int = 0
    step: int = 0
    loss_sums: list[float] = field(default_factory=list)
    spread_sum: float = 0.0

    def add(self, result: StepResult) -> None:
        """Count a step."""
        previous = self.loss_sums or [0.0] * len(result.losses)
        self.loss_sums = [a + b for a, b in zip(previous, result.losses, strict=True)]
        self.spread_sum += result.spread
        self.step += 1

    def report(
        self,
        *,
        epochs: int,
        lr: float,
        duration_s: float,
        images: int,
        replaced_images: int,
        monitor: dict[str, float],
    ) -> EpochReport:
        """What the epoch brought of which all steps are done; it still counts as not done.

        Args:
            epochs: Number of epochs in all.
            lr: Learning rate of the last step.
            duration_s: Wall time since the epoch was begun or resumed.
            images: Images trained on in this time.
            replaced_images: Unreadable images that a neighbour stood in for.
            monitor: What the monitor found.
        """
        largest, *others = [total / self.step for total in self.loss_sums]
        smallest, randoms = others[0] if others else None, others[1:]
        spread = self.spread_sum / self.step
        return EpochReport(
            epoch=self.epoch + 1,
            epochs=epochs,
            loss_largest=largest,
            loss_smallest=smallest,
            loss_random=sum(randoms) / len(randoms) if randoms else None,
            spread=spread,
            collapsed=spread < COLLAPSED and self.epoch > 0,
            lr=lr,
            duration_s=duration_s,
            images_per_s=images / duration_s,
            replaced_images=replaced_images,
            monitor=monitor,
        )
