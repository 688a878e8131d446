"""The plane through whole networks, on latencies whose law is known."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from edgesearch.errors import LatencyError
from edgesearch.latency.correction import (
    BlockSums,
    Correction,
    fit_correction,
    smooth_medians,
)

WARM = np.array([1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 9.0, 4.0])
COLD = np.array([1.9, 2.2, 4.1, 6.5, 8.3, 15.0, 11.9, 4.4])
BLOCKS = np.array([5.0, 7.0, 6.0, 12.0, 9.0, 20.0, 14.0, 8.0])
PARAMS = 1e6 * np.array([1.0, 0.5, 2.0, 1.5, 3.0, 4.0, 1.2, 3.5])
VALUES = 1e6 * np.array([0.3, 0.9, 0.5, 1.1, 0.7, 1.6, 0.4, 1.0])


def fit(lows, warm=WARM, cold=None, blocks=None, ratio=1.0, params=None, values=None, **fewest):
    blocks = np.full(len(warm), 8.0) if blocks is None else blocks
    params = np.zeros(len(warm)) if params is None else params
    values = np.zeros(len(warm)) if values is None else values
    ratios = {"median_ratio": ratio, "p95_ratio": 1.2}
    sums = BlockSums(warm, cold, blocks, params, values)
    return fit_correction(sums, ratio * lows, **ratios, **fewest)


def predicted(correction, sums, blocks):
    return correction.offset_ms + correction.scale * sums + correction.per_block_ms * blocks


def test_finds_the_line_that_is_there():
    lows = 0.3 + 1.1 * WARM
    correction = fit(lows)
    assert correction.offset_ms + 8 * correction.per_block_ms == pytest.approx(0.3)
    assert correction.scale == pytest.approx(1.1)
    assert correction.p95_ratio == pytest.approx(1.2)
    assert correction.fit_mape == pytest.approx(0, abs=1e-9)
    assert correction.loo_mape == pytest.approx(0, abs=1e-9)
    assert correction.networks == 8
    assert not correction.cold
    np.testing.assert_allclose(predicted(correction, WARM, np.full(8, 8.0)), lows)


def test_coefficients_hold_the_ratio_of_median_to_low_quantile():
    lows = 0.3 + 1.1 * WARM - 0.01 * BLOCKS
    correction = fit(lows, blocks=BLOCKS, ratio=1.05)
    np.testing.assert_allclose(predicted(correction, WARM, BLOCKS), 1.05 * lows)
    assert correction.fit_mape == pytest.approx(0, abs=1e-9)
    assert correction.median_ratio == 1.05


def test_medians_lie_above_low_quantiles_by_a_ratio_that_grows_with_latency():
    lows = np.geomspace(0.4, 1.6, 14)
    ratios = 1.06 * lows**0.04
    seen = [*zip(lows, ratios, strict=True)]
    np.testing.assert_allclose(smooth_medians(lows, seen, seen), ratios * lows)
    noisy = [(low, 1.5 if n in (3, 9) else ratio) for n, (low, ratio) in enumerate(seen)]
    np.testing.assert_allclose(smooth_medians(lows, noisy, noisy), ratios * lows, rtol=0.005)
    few = smooth_medians(lows, seen[:11], seen[:11])  # too few for a slope
    np.testing.assert_allclose(few, np.median(ratios[:11]) * lows)


def test_networks_that_take_the_same_time_tell_no_slope():
    seen = [(1.0, 1.1), (1.0, 1.2), (1.0, 1.3)] * 5
    np.testing.assert_allclose(smooth_medians(np.array([1.0, 2.0]), seen, seen), [1.2, 2.4])


def test_a_smooth_median_is_never_below_the_low_quantile():
    lows = np.array([0.001, 1.0, 1000.0])
    seen = [(10.0**n, 1 + 0.02 * n) for n in range(-1, 12)]
    assert (smooth_medians(lows, seen, seen) >= lows).all()
    assert smooth_medians(lows, [(1.0, 1.2)], [(1.0, 1.2)]) == pytest.approx(1.2 * lows)


def test_blocks_that_cost_more_alone_have_a_cost_of_their_own():
    lows = 0.2 + 0.9 * COLD - 0.03 * BLOCKS
    correction = fit(lows, cold=COLD, blocks=BLOCKS)
    assert correction.cold
    assert correction.scale == pytest.approx(0.9)
    assert correction.per_block_ms == pytest.approx(-0.03)
    assert correction.offset_ms == pytest.approx(0.2)


def test_weights_that_come_from_memory_have_a_cost():
    lows = 0.2 + 1.1 * WARM + 0.14 * PARAMS / 1e6
    correction = fit(lows, blocks=BLOCKS, ratio=1.05, params=PARAMS)
    assert correction.per_million_params_ms == pytest.approx(1.05 * 0.14)
    assert correction.offset_ms == pytest.approx(1.05 * 0.2)
    assert correction.scale == pytest.approx(1.05 * 1.1)
    assert correction.loo_mape == pytest.approx(0, abs=1e-9)


def test_many_weights_compete_for_room_in_the_caches():
    lows = 0.2 + 1.1 * WARM + 0.02 * (PARAMS / 1e6) ** 3
    correction = fit(lows, cold=COLD, blocks=BLOCKS, ratio=1.05, params=PARAMS, values=VALUES)
    assert not correction.cold
    assert correction.crowding_ms == pytest.approx(1.05 * 0.02)
    assert correction.per_million_params_ms == 0
    assert correction.per_million_values_ms == pytest.approx(0, abs=1e-9)
    assert correction.loo_mape == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(correction.crowded_ms(PARAMS), 1.05 * 0.02 * (PARAMS / 1e6) ** 3)


def test_what_a_block_alone_spends_at_its_ends_is_not_counted():
    lows = 0.2 + 1.1 * WARM - 0.05 * VALUES / 1e6
    correction = fit(lows, cold=COLD, blocks=BLOCKS, ratio=1.05, params=PARAMS, values=VALUES)
    assert correction.per_million_values_ms == pytest.approx(-1.05 * 0.05)
    assert correction.per_million_params_ms == 0
    assert correction.crowding_ms == pytest.approx(0, abs=1e-9)
    assert correction.loo_mape == pytest.approx(0, abs=1e-9)


def test_parameters_never_make_a_network_faster():
    lows = 0.2 + 1.1 * WARM - 0.02 * PARAMS / 1e6
    assert fit(lows, blocks=BLOCKS, params=PARAMS).per_million_params_ms == 0


def test_networks_that_fit_into_the_caches_are_like_warm_blocks():
    correction = fit(1.05 * WARM, cold=COLD, blocks=BLOCKS)
    assert not correction.cold
    assert correction.loo_mape < 1e-9


def test_no_more_columns_than_help():
    noise = 1 + 0.02 * np.array([1, -1, -1, 1, -1, 1, 1, -1])
    correction = fit(2 * WARM * noise, blocks=BLOCKS)
    assert correction.loo_mape <= 0.03
    assert correction.scale == pytest.approx(2, rel=0.03)


def test_relative_errors_count_not_absolute_ones():
    # Two large networks do not agree; least squares of absolute errors would follow them.
    sums = np.array([1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 90.0, 100.0])
    lows = np.append(sums[:6], [108.0, 90.0])
    errors = np.abs(predicted(fit(lows, sums), sums, np.full(8, 8.0)) / lows - 1)
    absolute = np.polyval(np.polyfit(sums, lows, 1), sums)
    assert errors.mean() < np.abs(absolute / lows - 1).mean()


def test_networks_too_alike_for_a_line_give_a_factor():
    sums = np.array([1.0, 1.01, 1.02, 1.03, 1.04, 1.05])
    correction = fit(np.array([2.3, 2.2, 2.1, 2.05, 2.0, 1.9]), sums)
    assert correction.offset_ms == correction.per_block_ms == 0
    assert correction.scale == pytest.approx(2.02, abs=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_noise_gives_no_negative_latencies(seed):
    rng = np.random.default_rng(seed)
    correction = fit(rng.uniform(1, 2, 8), WARM, COLD, BLOCKS)
    sums = COLD if correction.cold else WARM
    assert correction.scale > 0
    assert (predicted(correction, sums, BLOCKS) > 0).all()


def test_five_networks_are_too_few():
    with pytest.raises(LatencyError, match=r"at least 6 whole subnet.*found: 5 in the latency"):
        fit(np.arange(1.0, 6.0), np.arange(1.0, 6.0))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_space_of_so_few_networks_is_fitted_to_them(count):
    lows = 0.3 + 1.1 * WARM[:count]
    correction = fit(lows, WARM[:count], blocks=BLOCKS[:count], fewest=count)
    assert correction.networks == count
    assert (correction.loo_mape is None) == (count == 1)
    if count == 2:  # a line through two points would prove nothing
        assert correction.offset_ms == correction.per_block_ms == 0
    else:
        np.testing.assert_allclose(predicted(correction, WARM[:count], BLOCKS[:count]), lows)
    assert Correction.from_dict(asdict(correction)) == correction


def test_blocks_that_took_no_time_are_refused():
    six = np.arange(6.0)
    with pytest.raises(LatencyError, match=r"longer than the fixed cost.*blocks take 0 ms in all"):
        fit(six + 1, six)


WHOLE = Correction(0.1, 1.02, 1.05, 8, 0.01, -0.02, True, 0.015, 1.02)


def test_round_trip():
    assert Correction.from_dict(asdict(WHOLE)) == WHOLE


@pytest.mark.parametrize("name", list(asdict(WHOLE)))
@pytest.mark.parametrize("value", [None, "1", [1.0], float("nan"), float("inf")])
def test_a_value_of_the_wrong_kind_is_named(name, value):
    if (name, value) != ("loo_mape", None):  # unknown for a single network
        with pytest.raises(ValueError, match=f"{name} "):
            Correction.from_dict({**asdict(WHOLE), name: value})


@pytest.mark.parametrize("name", list(asdict(WHOLE)))
def test_only_terms_of_a_later_version_may_be_missing(name):
    left = {key: value for key, value in asdict(WHOLE).items() if key != name}
    if name in ("per_million_params_ms", "per_million_values_ms", "crowding_ms"):
        assert Correction.from_dict(left) == WHOLE
    else:
        with pytest.raises(KeyError, match=name):
            Correction.from_dict(left)


def test_a_block_never_costs_less_than_nothing():
    correction = replace(WHOLE, scale=2.0, per_block_ms=-0.5)
    assert [correction.block_cost_ms(ms, 10**6) for ms in (0.1, 0.25, 1.0)] == [0, 0, 1.5]
    heavy = replace(correction, per_million_params_ms=0.2)
    assert heavy.block_cost_ms(0.25, 2 * 10**6) == pytest.approx(0.4)
    ends = replace(correction, per_million_values_ms=-0.2)
    assert ends.block_cost_ms(1.0, 0, 5 * 10**5) == pytest.approx(1.4)
