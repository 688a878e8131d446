"""Draws that depend on nothing but what they are for."""

import numpy as np
import pytest

from edgesearch.training.randomness import hash64, order_of_epoch, seed_of, uniforms


def test_uniforms_are_in_range_and_even():
    draws = uniforms(8, 3, 5, np.arange(5000), 1)
    assert draws.shape == (5000, 8)
    assert draws.dtype == np.float64
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in draws.T])
    assert abs(counts / 250 - 1).max() < 0.35  # about 5 standard deviations


def test_uniforms_of_neighbours_are_unrelated():
    draws = uniforms(8, 3, 5, np.arange(5000), 1)
    columns = np.corrcoef(draws.T) - np.eye(8)
    assert abs(columns).max() < 0.08
    other_view, other_epoch = (
        uniforms(8, 3, 5, np.arange(5000), 0),
        uniforms(8, 3, 6, np.arange(5000), 1),
    )
    for other in (
        other_view,
        other_epoch,
        np.roll(draws, 1, axis=0),
        uniforms(8, 4, 5, np.arange(5000), 1),
    ):
        assert abs(np.corrcoef(draws[:, 0], other[:, 0])[0, 1]) < 0.08


def test_uniforms_do_not_depend_on_company():
    together = uniforms(4, 0, 1, np.arange(100), 0)
    assert np.array_equal(together, uniforms(4, 0, 1, np.arange(100), 0))
    assert np.array_equal(together[[70, 3]], uniforms(4, 0, 1, np.array([70, 3]), 0))
    assert np.array_equal(together[:, :2], uniforms(2, 0, 1, np.arange(100), 0))


def test_values_stay_the_same_from_version_to_version():
    """A resumed run would else go on with other draws."""
    assert int(hash64(1, 2, 3)) == 7041752555471512236
    assert order_of_epoch(8, 0, 0).tolist() == [3, 7, 6, 0, 4, 2, 1, 5]


def test_seeds_differ_by_every_part_and_its_place():
    parts = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (2**62, 0), (-1, 0)]
    seeds = [seed_of(*part) for part in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_order_is_a_permutation(count):
    assert sorted(order_of_epoch(count, 0, 3).tolist()) == list(range(count))


def test_order_depends_on_seed_and_epoch():
    orders = [order_of_epoch(100, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(map(tuple, orders))) == 4
    assert orders[0] == order_of_epoch(100, 0, 0).tolist()
