import numpy as np
import pytest

from edgesearch.errors import LatencyError
from edgesearch.latency import Correction, fit_correction


def test_finds_the_line_that_is_there():
    sums = np.array([1.0, 2.0, 3.0, 5.0, 8.0, 13.0])
    medians = 0.3 + 1.1 * sums
    correction = fit_correction(sums, medians, 1.2 * medians)
    assert correction.offset_ms == pytest.approx(0.3)
    assert correction.scale == pytest.approx(1.1)
    assert correction.p95_ratio == pytest.approx(1.2)
    assert correction.fit_mape == pytest.approx(0, abs=1e-9)
    assert correction.networks == 6
    np.testing.assert_allclose(correction.median_ms(sums), medians)


def test_relative_errors_count_not_absolute_ones():
    # One large network is off by a third; least squares of absolute errors would follow it.
    sums = np.array([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 100.0])
    medians = np.append(sums[:6], 133.0)
    errors = np.abs(fit_correction(sums, medians, medians).median_ms(sums) / medians - 1)
    absolute = np.polyval(np.polyfit(sums, medians, 1), sums)
    assert errors.max() < np.abs(absolute / medians - 1).max()


def test_networks_too_alike_for_a_line_give_a_factor():
    sums = np.array([1.0, 1.01, 1.02, 1.03, 1.04, 1.05])
    correction = fit_correction(sums, np.array([2.3, 2.2, 2.1, 2.05, 2.0, 1.9]), sums * 2)
    assert correction.offset_ms == 0
    assert correction.scale == pytest.approx(2.02, abs=0.05)


def test_five_networks_are_too_few():
    five = np.arange(1.0, 6.0)
    with pytest.raises(LatencyError, match=r"at least 6 whole subnets.*found: 5 in the latency"):
        fit_correction(five, five, five)


def test_blocks_that_took_no_time_are_refused():
    six = np.arange(6.0)
    with pytest.raises(LatencyError, match=r"longer than the fixed cost.*blocks take 0 ms in all"):
        fit_correction(six, six + 1, six + 1)


def test_round_trip_with_other_entries_beside():
    correction = Correction(0.1, 1.02, 1.05, 8, 0.01)
    assert Correction.from_dict({"space_hash": "x", **correction.to_dict()}) == correction
