"""A loss that leaves its level for good, long before it is no number any more."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgesearch.errors import TrainingError
from edgesearch.pretrain.key_queue import queues_of
from edgesearch.pretrain.method import Method

EXPLODED = 3.0
"""Times the level. A loss that rises ever more slowly, as while a queue fills, stays below twice
its mean so far. After a start from trained weights the level may be far below chance, to which a
healthy training may come back."""
OPENING = 20
"""Steps before there is a level: the first losses, against a queue of random vectors, are none."""
PATIENCE = 50
"""High steps that may be a spike."""
UNSTABLE = (
    "Set a smaller pretrain.lr or more pretrain.warmup_epochs. The last good state, if there was "
    "one yet, has been kept, and model.safetensors is of the last good epoch (for pretrain.init)."
)
"""What to do about a training that blows up."""


@dataclass
class LossWatch:
    """Watches the loss of the largest network, whatever the epochs; part of the state of a run.

    The level is the highest mean that the steps so far have had at any time; a step is high if its
    loss is more than three times the level and more than chance, and counts for no mean. The loss
    has exploded when there have been 50 more high steps than others since the first of them.

    Attributes:
        steps: Steps that count for the mean.
        mean: Their mean loss.
        level: The highest mean so far; 0 in the first steps.
        high: High steps that no other step has made up for.
    """

    steps: int = 0
    mean: float = 0.0
    level: float = 0.0
    high: int = 0

    @property
    def usual(self) -> bool:
        """Whether the loss is at its level, so that the present state is a good one."""
        return self.high == 0

    def add(self, loss: float, where: str, *, chance: float = 0.0, last: bool = False) -> None:
        """Look at the loss of a step.

        Args:
            loss: The loss.
            where: The step, to be named in a message.
            chance: A loss that is never high; see `chance_of`.
            last: No step comes after it to tell a spike from an explosion: if it is high, and not
                the first one, it is an explosion.

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
    """The loss of embeddings that tell nothing, where the method compares with other images.

    Args:
        method: What is trained.
        batch_size: Images in the global batch.
    """
    size = max((queue.size for queue in queues_of(method)), default=0)
    return math.log(2 * batch_size - 1) if method.batch_is_negatives else math.log1p(size)
