"""Detection of an exploding loss long before it becomes NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgesearch.errors import TrainingError
from edgesearch.pretrain.key_queue import queues_of
from edgesearch.pretrain.method import Method

EXPLODED = 3.0
"""Multiple of the level. A loss that grows ever more slowly, as while a queue fills, stays below
twice its mean so far. After `pretrain.init` the level may be far below chance, to which a healthy
training may return."""
OPENING = 20
"""Steps without level: the first losses, against a queue of random vectors, are unusual."""
PATIENCE = 50
"""High steps that may still be a spike."""
UNSTABLE = (
    "Set a smaller pretrain.lr or more pretrain.warmup_epochs. The last good state, if there was "
    "one yet, has been kept, and model.safetensors is of the last good epoch (for pretrain.init)."
)


@dataclass
class LossWatch:
    """Watches the loss of the largest network; part of the training state.

    The level is the highest running mean of the loss so far. A step is high if its loss exceeds
    both chance and three times the level; it does not enter the mean. The loss has exploded when
    high steps outnumber others by 50 since the first high step.

    Attributes:
        steps: Steps in the mean.
        mean: Mean loss of these steps.
        level: Highest mean so far; 0 in the first steps.
        high: High steps minus later normal ones, at least 0.
    """

    steps: int = 0
    mean: float = 0.0
    level: float = 0.0
    high: int = 0

    @property
    def usual(self) -> bool:
        """Whether the loss is at its level, so that the current state is good."""
        return self.high == 0

    def add(self, loss: float, where: str, *, chance: float = 0.0, last: bool = False) -> None:
        """Add the loss of a step.

        Args:
            loss: The loss.
            where: Description of the step for messages.
            chance: Losses up to this value are never high; see `chance_of`.
            last: No later step can tell a spike from an explosion, so a second high step counts as
                an explosion.

        Raises:
            TrainingError: The loss has exploded.
        """
        most = max(EXPLODED * self.level, chance)
        is_high = self.level > 0 and loss > most
        if is_high:
            self.high += 1
        else:
            self.high = max(0, self.high - 1)
            self.steps += 1
            self.mean += (loss - self.mean) / self.steps
            if self.steps >= OPENING:
                self.level = max(self.level, self.mean)
        if self.high > (1 if last and is_high else PATIENCE - 1):
            level = "chance" if most == chance else f"{EXPLODED:g} times the highest mean so far"
            raise TrainingError(
                f"a loss of at most {most:.4g}, {level}",
                f"{self.high} more high steps than others, up to {where}, the last {loss:.4g}",
                UNSTABLE,
            )
        if last:
            self.high = 0


def chance_of(method: Method, batch_size: int) -> float:
    """Loss of uninformative embeddings of a contrastive method for a global batch; else 0."""
    size = max((queue.size for queue in queues_of(method)), default=0)
    return math.log(2 * batch_size - 1) if method.batch_is_negatives else math.log1p(size)
