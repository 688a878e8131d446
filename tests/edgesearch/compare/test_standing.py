"""Front, differences and the words of the verdict."""

import pytest
from scipy.stats import ttest_rel

from edgesearch.compare.standing import Standing, difference, front, verdict

FAST, GOOD = Standing((0.70, 0.72, 0.74), 1.0), Standing((0.80, 0.81, 0.85), 2.0)


def test_the_interval_is_that_of_the_paired_t_test():
    gap = difference(GOOD, FAST)
    interval = ttest_rel(GOOD.values, FAST.values).confidence_interval(0.95)
    assert gap.mean - gap.half == pytest.approx(interval.low)
    assert gap.mean + gap.half == pytest.approx(interval.high)
    assert gap.latency == 2.0
    assert gap.is_sure


def test_one_training_tells_nothing_of_chance():
    gap = difference(Standing((0.9,), 1.0), Standing((0.1,), 1.0))
    assert gap.half is None
    assert not gap.is_sure


def test_the_front_leaves_out_what_another_beats():
    networks = {
        "good": GOOD,
        "fast": FAST,
        "worse": Standing((0.70, 0.71, 0.72), 1.5),
        "slower": Standing(GOOD.values, 2.5),
        "equal": Standing(FAST.values, 1.0),
    }
    assert front(networks) == ["fast", "equal", "good"]


def test_a_lost_comparison_is_said_as_plainly_as_a_won_one():
    networks = {
        "w0": FAST,
        "resnet": Standing((0.90, 0.92, 0.94), 0.5),
        "small": Standing((0.50, 0.52, 0.54), 0.2),
        "like": Standing((0.60, 0.72, 0.90), 1.0),
        "random 1": Standing((0.5,) * 3, 1.0),
        "random 2": Standing((0.6,) * 3, 1.0),
        "random 3": Standing((0.9,) * 3, 1.0),
    }
    text = verdict("w0", networks, "accuracy", "board", ["random 1", "random 2", "random 3"])
    assert text == (
        "w0 is not on the front of 7 networks on board: accuracy 72.0 ± 2.0 % in 1.000 ms. "
        "It is ahead of small (+20.0 points, ± 0.0; 5.00 times its latency). "
        "It is behind resnet (-20.0 points, ± 0.0; 2.00 times its latency). "
        "It is not surely apart from like (-2.0 points, ± 32.6; 1.00 times its latency). "
        "Against the median of 3 random architectures of its latency it is 12.0 points ahead; "
        "2 of them are worse."
    )
