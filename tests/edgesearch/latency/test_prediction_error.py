"""Errors of predictions, computed by hand."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from edgesearch.latency.prediction_error import PredictionError, prediction_error


def test_figures():
    measured = np.array([1.0, 2.0, 4.0, 8.0])
    errors = prediction_error(np.array([1.04, 1.92, 4.36, 7.0]), measured)
    assert errors.n == 4
    assert errors.mape == pytest.approx((0.04 + 0.04 + 0.09 + 0.125) / 4)
    assert errors.bias == pytest.approx((0.04 - 0.04 + 0.09 - 0.125) / 4)
    assert errors.within_5 == 0.5
    assert errors.within_10 == 0.75
    assert errors.worst == 0.125
    assert errors.kendall_tau == 1


def test_rank_correlation():
    measured = np.array([1.0, 2.0, 3.0])
    assert prediction_error(measured[::-1], measured).kendall_tau == -1
    assert prediction_error(np.array([1.0, 3.0, 2.0]), measured).kendall_tau == pytest.approx(1 / 3)


def test_one_network_or_equal_predictions_have_no_rank_correlation():
    assert prediction_error(np.array([1.0]), np.array([1.0])).kendall_tau is None
    assert prediction_error(np.ones(3), np.arange(1.0, 4.0)).kendall_tau is None


def test_survives_json():
    errors = prediction_error(np.array([1.0, 3.0]), np.array([1.0, 2.0]))
    assert PredictionError(**json.loads(json.dumps(asdict(errors)))) == errors
