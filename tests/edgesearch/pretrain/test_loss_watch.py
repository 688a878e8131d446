"""When a loss counts as exploded."""

import pytest

from edgesearch.errors import TrainingError
from edgesearch.pretrain.loss_watch import LossWatch


def test_a_spike_is_told_from_an_explosion():
    watch = LossWatch(5)
    losses = (1, 2.9, 1, 90, 3, 7)
    assert [watch.add(loss, 1.0, "here") for loss in losses] == [True] * 3 + [False, True, False]
    message = (
        "a loss of at most 3, 3 times that of an earlier epoch; found: a median of 7 in the last 5 "
        "steps, at step 9. Set a smaller pretrain.lr or more pretrain.warmup_epochs"
    )
    with pytest.raises(TrainingError, match=message):
        watch.add(9, 1.0, "step 9")


def test_a_hundred_steps_are_waited_for_at_most():
    watch = LossWatch(5000)
    for _ in range(99):
        assert not watch.add(10.0, 1.0, "here")
    with pytest.raises(TrainingError, match="in the last 100 steps"):
        watch.add(10.0, 1.0, "here")


def test_a_level_that_is_not_known_is_no_level():
    """In the first epochs a queue of random vectors makes the loss begin far too low."""
    watch = LossWatch(2)
    assert all(watch.add(loss, 0.0, "here") for loss in (0.1, 8.0, 8.0, 8.0))
