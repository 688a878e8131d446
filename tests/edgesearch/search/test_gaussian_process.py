"""The surrogate's Gaussian process against scikit-learn and plain arithmetic."""

import numpy as np
import pytest
from scipy.stats import norm

from edgesearch.search.strategies.gaussian_process import Posterior, fit_process


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.random((30, 3))
    y = np.sin(3 * x[:, 0]) + x[:, 1]
    return x, (y - y.mean()) / y.std(), rng.random((12, 3))


@pytest.fixture(scope="module")
def process(data):
    return fit_process(*data[:2])


def test_posterior_equals_scikit_learns(data, process):
    mean, deviation = process.predict(data[2], return_std=True)
    found = Posterior(process, data[2])
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    noise = process.kernel_.k2.noise_level
    np.testing.assert_allclose(found.variance, deviation**2 - noise, atol=1e-6)


def test_a_proposal_counts_as_measured_at_its_mean(data, process):
    """The short update equals conditioning on all from the beginning."""
    x, y, points = data
    short = Posterior(process, points)
    short.propose(4)
    short.propose(7)
    whole = fit_process(
        np.vstack([x, points[[4, 7]]]),
        np.concatenate([y, short.mean[[4, 7]]]),
        process.kernel_.theta,
        anew=False,
    )
    found = Posterior(whole, points)
    np.testing.assert_allclose(found.mean, short.mean, atol=1e-5)
    np.testing.assert_allclose(found.variance, short.variance, atol=1e-6)


def test_hyperparameters_of_many_points_are_those_of_some(monkeypatch, data, process):
    """Fitted to a part, and taken over for all."""
    monkeypatch.setattr("edgesearch.search.strategies.gaussian_process.MOST_TO_FIT", 20)
    x, y, points = data
    found = fit_process(x, y)
    assert len(found.X_train_) == 30
    chosen = np.linspace(0, 29, 20).astype(int)
    np.testing.assert_allclose(found.kernel_.theta, fit_process(x[chosen], y[chosen]).kernel_.theta)


def test_improvement_equals_its_integral(data, process):
    found = Posterior(process, data[2])
    improvement = found.expected_improvement(0.3)
    levels = (np.arange(100_000) + 0.5) / 100_000
    for index in range(12):
        values = norm(found.mean[index], np.sqrt(found.variance[index])).ppf(levels)
        expected = np.maximum(values - 0.3, 0).mean()
        assert improvement[index] == pytest.approx(expected, abs=1e-5)
    assert improvement.min() < 1e-3 < improvement.max()


def test_fits_what_is_smooth(data, process):
    points = data[2]
    truth = np.sin(3 * points[:, 0]) + points[:, 1]
    assert np.corrcoef(Posterior(process, points).mean, truth)[0, 1] > 0.99
