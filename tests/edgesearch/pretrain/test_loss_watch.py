"""When a loss counts as exploded."""

import math

import pytest

from edgesearch.errors import TrainingError
from edgesearch.families import load_space
from edgesearch.pretrain.loss_watch import OPENING, PATIENCE, LossWatch, chance_of
from edgesearch.pretrain.method import make_method


def watch_of(*losses):
    watch = LossWatch()
    for step, loss in enumerate(losses):
        watch.add(loss, f"step {step}")
    return watch


def test_a_spike_is_told_from_an_explosion():
    watch = watch_of(*[1.0] * 100)
    seen = []
    for loss in (2.9, 90, 3.5, 1, 1, 1):
        watch.add(loss, "here")
        seen.append(watch.usual)
    assert seen == [True, False, False, False, True, True]
    assert watch.level < 1.1


def test_an_explosion_is_told_with_its_step_and_a_remedy():
    watch = watch_of(*[5.0] * 30, *[50.0] * (PATIENCE - 1))
    message = (
        "a loss of at most 15, 3 times the highest mean so far; found: 50 more high steps than "
        "others, up to step 79 .epoch 4., the last 49. Set a smaller pretrain.lr or more "
    )
    with pytest.raises(TrainingError, match=message):
        watch.add(49.0, "step 79 (epoch 4)")


def test_an_explosion_with_low_steps_in_between():
    with pytest.raises(TrainingError, match="50 more high steps than others, up to step 127"):
        watch_of(*[5.0] * 30, *[50.0, 50.0, 50.0, 6.0] * 100)


def test_one_that_grows_slowly():
    with pytest.raises(TrainingError, match="3 times the highest mean"):
        watch_of(*[5.0] * 1000, *(5.0 * 1.005**step for step in range(1000)))


def test_the_level_outlives_a_low_loss():
    """Chance is what a loss may come back to."""
    assert watch_of(*[4.0] * 30, *[0.1] * 5000, *[4.0] * 200).level == 4


@pytest.mark.parametrize("each", [0.01, 0.1, 1.0, 16.0, 256.0])
@pytest.mark.parametrize("size", [256, 4096, 131072])
@pytest.mark.parametrize("first", [0.0, 0.4])
def test_a_queue_that_fills_makes_no_explosion(each, size, first):
    """`each` keys a step become as hard negatives as the positive is near; at first there is none.

    The loss rises from about 0 to the logarithm of their number, fast or in thousands of steps.
    """
    losses = [first + math.log1p(min(size, each * step)) for step in range(5000)]
    watch = LossWatch()
    for loss in losses:
        watch.add(loss, "here")
        assert watch.usual
    assert watch.level >= losses[-1] / 3


def test_a_start_from_trained_weights_may_come_back_to_chance():
    watch = LossWatch()
    for loss in [0.01] * OPENING + [0.3] * 200:
        watch.add(loss, "here", chance=3.4)
        assert watch.usual
    assert watch.level > 0.2
    for _ in range(PATIENCE - 1):
        watch.add(4.0, "here", chance=3.4)
    with pytest.raises(TrainingError, match=r"at most 3\.4, chance; found: 50 more high steps"):
        watch.add(4.0, "here", chance=3.4)


def test_chance():
    space = load_space("resnet_tiny", in_channels=1)
    moco = make_method("moco_v2", space, queue_size=64, projector_hidden_dim=8, projector_dim=4)
    assert chance_of(moco, 16) == pytest.approx(math.log(65))
    simclr = make_method("simclr", space, projector_hidden_dim=8, projector_dim=4)
    assert chance_of(simclr, 16) == pytest.approx(math.log(31))
    assert chance_of(make_method("byol", space, projector_hidden_dim=8, projector_dim=4), 16) == 0


def test_the_first_steps_have_no_level():
    assert watch_of(*[0.1] * (OPENING - 1), 9.0).usual
    assert not watch_of(*[0.1] * OPENING, 9.0).usual


class TestLastStep:
    def test_alone_is_a_spike(self):
        watch = watch_of(*[1.0] * 30)
        watch.add(9.0, "here", last=True)
        assert watch.usual

    def test_that_is_not_the_first_high_one_is_of_an_explosion(self):
        watch = watch_of(*[1.0] * 30, 9.0)
        with pytest.raises(
            TrainingError, match="2 more high steps than others, up to step 31, the last 8"
        ):
            watch.add(8.0, "step 31", last=True)

    def test_at_its_level_it_ends_what_high_steps_began(self):
        watch = watch_of(*[1.0] * 30, 9.0, 9.0, 9.0)
        watch.add(1.0, "here", last=True)
        assert watch.usual

    def test_at_its_level_it_ends_a_spike(self):
        watch = watch_of(*[1.0] * 30, 9.0, 9.0)
        assert not watch.usual
        watch.add(1.0, "here", last=True)
        assert watch.usual
