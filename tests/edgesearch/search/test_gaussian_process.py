"""The surrogate's Gaussian process against plain linear algebra and scikit-learn."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor

from edgesearch.search.strategies.gaussian_process import JITTER, GaussianProcess, Posterior


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.random((30, 3))
    y = np.sin(3 * x[:, 0]) + x[:, 1]
    return x, (y - y.mean()) / y.std(), rng.random((12, 3))


@pytest.fixture(scope="module")
def process(data):
    return GaussianProcess(*data[:2])


def test_posterior_equals_scikit_learns(data, process):
    x, y, points = data
    same = GaussianProcessRegressor(process.kernel, alpha=JITTER, optimizer=None).fit(x, y)
    mean, deviation = same.predict(points, return_std=True)
    found = Posterior(process, points)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    noise = process.kernel.k2.noise_level
    np.testing.assert_allclose(found.variance, deviation**2 - noise, atol=1e-6)


def test_a_proposal_counts_as_measured_at_its_mean(data, process):
    """The short update equals conditioning on all from the beginning."""
    x, y, points = data
    short = Posterior(process, points)
    short.propose(4)
    short.propose(7)
    whole = GaussianProcess(
        np.vstack([x, points[[4, 7]]]),
        np.concatenate([y, short.mean[[4, 7]]]),
        process.theta,
        fit=False,
    )
    found = Posterior(whole, points)
    np.testing.assert_allclose(found.mean, short.mean, atol=1e-5)
    np.testing.assert_allclose(found.variance, short.variance, atol=1e-6)


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
