"""A loss that leaves its level for good, long before it is no number any more."""

from __future__ import annotations

import statistics
from collections import deque

from edgesearch.errors import TrainingError

EXPLODED = 3.0
"""Times the level. Chance is what the loss of a healthy training may come back to, not more."""
STEPS = 100
UNSTABLE = (
    "Set a smaller pretrain.lr or more pretrain.warmup_epochs. The last good state, if there was "
    "one yet, has been kept, and model.safetensors is of the last whole epoch (for pretrain.init)."
)
"""What to do about a training that blows up."""


class LossWatch:
    """Watches the loss of the largest network.

    It has exploded when the median of the last 100 steps (or of an epoch, if that is shorter) is
    more than three times the highest mean of an earlier epoch. The first epoch does not count: the
    loss may begin far below its level, as long as a queue holds random vectors.

    Args:
        steps_per_epoch: Steps in an epoch.
    """

    def __init__(self, steps_per_epoch: int) -> None:
        self._recent: deque[float] = deque(maxlen=min(STEPS, steps_per_epoch))

    def add(self, loss: float, level: float, where: str) -> bool:
        """Look at the loss of a step.

        Args:
            loss: The loss.
            level: The highest mean of an earlier epoch; 0 if there is none.
            where: The step, to be named in a message.

        Returns:
            Whether this step's loss is within its bounds.

        Raises:
            TrainingError: The loss has exploded.
        """
        self._recent.append(loss)
        most = EXPLODED * level
        if not level or loss <= most:
            return True
        median = statistics.median_low(self._recent)
        if len(self._recent) == self._recent.maxlen and median > most:
            raise TrainingError(
                f"a loss of at most {most:.4g}, {EXPLODED:g} times that of an earlier epoch",
                f"a median of {median:.4g} in the last {len(self._recent)} steps, at {where}",
                UNSTABLE,
            )
        return False
