"""Which networks are compared."""

import numpy as np
import pytest

from edgesearch.compare.candidates import (
    END,
    WINNER,
    Candidate,
    distinct,
    of_latency,
    uniformly_scaled,
)
from edgesearch.families import load_space


@pytest.fixture(scope="module")
def mobile():
    return load_space("mobile_lite0")


def by_macs(space):
    sums = space.sums(lambda block: block.macs)
    return lambda digits: sums(digits) / 1e6


def test_random_architectures_have_the_latency_and_are_drawn_by_the_seed(mobile):
    predict = by_macs(mobile)
    wanted = float(predict(mobile.to_digits([mobile.largest]))[0]) / 3
    first, again, other = (of_latency(mobile, predict, wanted, 8, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 8
    found = predict(mobile.to_digits(first))
    assert np.abs(found / wanted - 1).max() <= 0.03


def test_those_known_are_not_drawn_again(space):
    known = list(space)[:-1]
    predict = by_macs(space)
    assert of_latency(space, predict, 1e9, 3, 0) == []
    wanted = float(predict(space.to_digits([space.largest]))[0])
    assert of_latency(space, predict, wanted, 3, 0, known) == [space.largest]


def test_the_scaled_network_has_all_choices_at_one_level(mobile):
    predict = by_macs(mobile)
    ends = predict(mobile.to_digits([mobile.smallest, mobile.largest]))
    assert uniformly_scaled(mobile, predict, float(ends[0])) == mobile.smallest
    assert uniformly_scaled(mobile, predict, float(ends[1])) == mobile.largest
    middle = uniformly_scaled(mobile, predict, float(ends.mean()))
    (digits,) = mobile.to_digits([middle])
    levels = digits / np.maximum(1, [len(values) - 1 for values in mobile.choices.values()])
    several = [
        level for level, v in zip(levels, mobile.choices.values(), strict=True) if len(v) > 1
    ]
    assert np.ptp(several) <= 0.5


def test_the_same_network_is_trained_once(space):
    both = [
        Candidate.subnet("w0", WINNER, space.largest),
        Candidate.subnet("largest", END, space.largest),
        Candidate.subnet("smallest", END, space.smallest),
    ]
    assert distinct(both) == ([both[0], both[2]], {"largest": "w0"})
