"""Figures from raw samples."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from profilers import statistics


def test_low_quantile_is_that_of_all_samples() -> None:
    rounds = [[5.0 + i, 1.0 + i, 9.0] for i in range(11)]
    assert statistics.low_quantile_ms(rounds) == pytest.approx(np.quantile(rounds, 0.1))


def test_one_lucky_round_does_not_decide_and_slow_ones_do_not_count() -> None:
    undisturbed = [[1.0, 1.1]] * 12
    lucky = [[0.1, 1.1], *undisturbed[1:]]
    disturbed = [*undisturbed[:4], *[[50.0, 60.0]] * 8]
    assert statistics.low_quantile_ms(lucky) == pytest.approx(1.0)
    assert statistics.low_quantile_ms(disturbed) == pytest.approx(1.0)


def test_median_is_that_of_the_rounds_medians() -> None:
    assert statistics.median_ms([[1, 2, 9], [3, 4, 5], [6, 7, 8]]) == 4
    assert statistics.median_ms([[1, 3]]) == 2


def test_percentiles_are_those_of_all_samples() -> None:
    rounds = [[float(i), float(i + 1)] for i in range(0, 100, 2)]
    assert statistics.percentile_ms(rounds, 95) == pytest.approx(np.percentile(range(100), 95))
    assert statistics.percentile_ms([[1.0], [2.0, 3.0]], 100) == 3


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (8, 1), (9, 2), (12, 3), (20, 6), (50, 18)])
def test_interval_has_the_ranks_of_the_published_tables(count: int, rank: int) -> None:
    # Ranks for 95 %, as in the tables of nonparametric statistics (Conover, Hahn and Meeker).
    rounds = [[float(i)] for i in range(1, count + 1)]
    assert statistics.median_interval_ms(rounds) == (rank, count + 1 - rank)


@pytest.mark.parametrize("count", [1000, 1100, 5000])
def test_thousands_of_rounds(count: int) -> None:
    """More ways to choose than a float can tell."""
    rounds = [[float(i)] for i in range(1, count + 1)]
    low, high = statistics.median_interval_ms(rounds)
    rank = int(binom.ppf(0.025, count, 0.5))
    assert (low, high) == (rank, count + 1 - rank)
    low, high = statistics.percentile_interval_ms(rounds, 95)
    assert low == binom.ppf(0.025, count, 0.95)
    assert high == binom.ppf(0.975, count, 0.95) + 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_rounds_give_their_whole_range(count: int) -> None:
    rounds = [[float(i)] for i in range(count)]
    assert statistics.median_interval_ms(rounds) == (0, count - 1)


@pytest.mark.parametrize("count", range(1, 40))
def test_interval_is_the_narrowest_with_its_confidence_and_holds_the_median(count: int) -> None:
    rounds = [[float(i)] for i in range(1, count + 1)]
    low, high = statistics.median_interval_ms(rounds)
    assert low <= statistics.median_ms(rounds) <= high

    def confidence(rank: int) -> float:
        inside = sum(math.comb(count, hits) for hits in range(rank, count - rank + 1))
        return inside / 2**count

    if confidence(1) >= 0.95:
        assert confidence(int(low)) >= 0.95
        assert 2 * (low + 1) > count + 1 or confidence(int(low) + 1) < 0.95


def test_interval_holds_the_true_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        low, high = statistics.median_interval_ms(random.lognormal(size=(12, 1)).tolist())
        held += low <= 1.0 <= high  # the median of this distribution
    assert 0.93 <= held / 400 <= 0.99


@pytest.mark.parametrize(
    ("count", "low", "high"), [(1, 1, 1), (4, 1, 3), (12, 1, 4), (29, 1, 7), (48, 2, 9)]
)
def test_width_is_that_between_the_ranks_of_the_low_quantile(
    count: int, low: int, high: int
) -> None:
    minima = [10.0 + i for i in range(1, count + 1)]
    assert statistics.low_quantile_width_ms(minima[::-1]) == pytest.approx(high - low)


def test_the_low_quantile_lies_in_its_interval_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    true_quantile = np.exp(-1.2815515655446004)  # of this distribution
    held = 0
    for _ in range(400):
        values = np.sort(random.lognormal(size=60))
        width = statistics.low_quantile_width_ms(values.tolist())
        (low,) = [v for v in values if any(np.isclose(v + width, values))][:1]
        held += low <= true_quantile <= low + width
    assert 0.86 <= held / 400 <= 0.97


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(1, 1, 1), (2, 1, 2), (4, 3, 4), (12, 10, 12), (48, 42, 48), (72, 64, 72)],
)
def test_interval_of_a_percentile_has_the_ranks_of_the_binomial_distribution(
    count: int, low: int, high: int
) -> None:
    rounds = [[float(i)] for i in range(1, count + 1)]
    found = statistics.percentile_interval_ms(rounds[::-1], 95)
    assert found == (low, high)

    def below(rank: int) -> float:  # probability that fewer than `rank` of the values are below
        hits = range(rank)
        return sum(math.comb(count, k) * 0.95**k * 0.05 ** (count - k) for k in hits)

    if count > 1:
        assert below(low) <= 0.025 < below(low + 1)
    assert (1 - below(high) <= 0.025) == (count >= 72)


@pytest.mark.parametrize("runs", [1, 3, 10])
def test_runs_that_repeat_their_round_tell_nothing_more(runs: int) -> None:
    values = np.random.default_rng(0).lognormal(size=48).tolist()
    one_each = statistics.percentile_interval_ms([[value] for value in values], 95)
    assert statistics.percentile_interval_ms([[value] * runs for value in values], 95) == one_each


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [4, 48, 192])
def test_lower_end_is_below_the_true_percentile_as_often_as_it_says(
    count: int, shared: float
) -> None:
    # Runs of a round are alike in `shared` of their variance, as on a machine with slow minutes.
    random = np.random.default_rng(0)
    true_percentile = np.exp(1.6448536269514722)  # the 95th of this distribution
    below = 0
    for _ in range(400):
        of_round, of_run = random.normal(size=(count, 1)), random.normal(size=(count, 3))
        samples = np.exp(math.sqrt(shared) * of_round + math.sqrt(1 - shared) * of_run)
        low, _ = statistics.percentile_interval_ms(samples.tolist(), 95)
        below += low <= true_percentile
    assert below / 400 >= 0.97
