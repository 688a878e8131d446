"""When embeddings count as the same for all images."""

import pytest

from edgesearch.pretrain.epoch_report import Progress
from edgesearch.pretrain.sandwich import StepResult


def first_collapsed(steps, spreads):
    """The step at which a collapse is seen first, None if it is not."""
    progress = Progress()
    for number, spread in enumerate(spreads):
        progress.add(StepResult([1.0], spread, True))
        if progress.collapsed(steps):
            return number
        if progress.step == steps:
            progress = progress.next_epoch()
    return None


@pytest.mark.parametrize(
    ("steps", "apart", "seen"),
    [
        (5000, 0, 299),  # not in the first steps
        (5000, 150, 299),
        (5000, 3000, 3099),
        (5000, 4950, 5049),  # over an epoch's end
        (22, 0, 21),
        (22, 30, 51),
        (150, 10, 149),
    ],
)
def test_after_a_hundred_steps_or_an_epoch(steps, apart, seen):
    spreads = [0.03] * apart + [0.004] * 400
    assert first_collapsed(steps, spreads) == seen


def test_not_while_a_step_between_is_apart():
    assert first_collapsed(5000, ([0.004] * 99 + [0.011]) * 20) is None


def test_not_when_it_goes_by_in_the_first_steps():
    assert first_collapsed(5000, [0.004] * 290 + [0.02] * 1000) is None
