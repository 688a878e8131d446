"""Kendall's tau with intervals, against scipy and loops."""

import math

import numpy as np
import pytest
from scipy import stats

from edgesearch.evaluate.rank_correlation import kendall_taus, rank_correlations


def drawn(count, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=count)
    y = x + rng.normal(size=count)
    return (x.round(), y.round()) if ties else (x, y)


@pytest.mark.parametrize("ties", [False, True])
def test_each_draw_equals_scipys_of_the_same_networks_written_out(ties):
    x, y = drawn(15, ties=ties)
    weights = np.random.default_rng(1).multinomial(15, np.full(15, 1 / 15), size=300).astype(float)
    weights[0] = 1
    found = kendall_taus(x, y, weights, np.ones((15, 15)))
    for tau, times in zip(found, weights.astype(int), strict=True):
        written_out = stats.kendalltau(np.repeat(x, times), np.repeat(y, times)).statistic
        assert tau == pytest.approx(written_out)


def test_what_cannot_run_is_infinitely_slow_and_equal_values_have_no_order():
    latency, accuracy = np.array([1, 2, 3, np.inf, np.inf]), np.arange(5.0)
    expected = stats.kendalltau([1, 2, 3, 4, 4], accuracy).statistic
    slow, equal = rank_correlations(
        {"latency": latency, "equal": np.ones(5)}, accuracy, np.zeros(5), draws=10
    )
    assert slow.tau.value == pytest.approx(expected)
    assert slow.of_bins == (pytest.approx(expected),)
    assert all(map(math.isnan, (equal.tau.value, equal.tau.low, *equal.of_bins)))


def test_within_bins_counts_the_pairs_of_a_bin():
    x, y = drawn(30)
    bins = np.arange(30) % 3
    (found,) = rank_correlations({"x": x}, y, bins, draws=10)
    concordant = pairs = 0
    for i in range(30):
        for j in range(i):
            if bins[i] == bins[j]:
                pairs += 1
                concordant += 1 if (x[i] - x[j]) * (y[i] - y[j]) > 0 else -1
    assert found.within.value == pytest.approx(concordant / pairs)
    assert found.of_bins == pytest.approx(
        [stats.kendalltau(x[bins == b], y[bins == b]).statistic for b in range(3)]
    )
    assert found.tau.value == pytest.approx(stats.kendalltau(x, y).statistic)


def test_a_score_that_only_knows_the_bin_is_worth_nothing_within():
    bins = np.repeat(np.arange(4), 25)
    accuracy = bins + np.random.default_rng(0).normal(0, 0.1, 100)
    size, better = bins.astype(float), accuracy + np.random.default_rng(1).normal(0, 0.05, 100)
    size += np.random.default_rng(2).normal(0, 0.01, 100)
    first, second = rank_correlations({"better": better, "size": size}, accuracy, bins)
    assert second.tau.value > 0.7
    assert second.within.low < 0 < second.within.high
    assert first.within.low > 0.5
    assert second.behind_within.low > 0.3
    assert second.behind_within.value == pytest.approx(first.within.value - second.within.value)
    assert (first.behind.value, first.behind.low, first.behind.high) == (0, 0, 0)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Of two unrelated scores, tau is 0."""
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(2, 40))
        (found,) = rank_correlations({"x": x}, y, np.zeros(40), draws=200, seed=seed)
        held += found.tau.low <= 0 <= found.tau.high
    assert 0.88 <= held / 200 <= 0.99


def test_depends_on_the_seed_only():
    x, y = drawn(20)
    found = [rank_correlations({"x": x}, y, np.zeros(20), seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0] != found[2]
