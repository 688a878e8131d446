"""A Gaussian process over encoded architectures, with what a batch of proposals needs of it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

MOST_TO_FIT = 200
"""Points on which length scales are fitted, at most: the time grows with their third power."""
FIT_ITERATIONS = 40
JITTER = 1e-8


class GaussianProcess:
    """Regression with a linear trend, a Matérn kernel with a length for each feature, and noise.

    The hyperparameters maximise the marginal likelihood.

    Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), algorithm 2.1;
    scikit-learn's `GaussianProcessRegressor` fits the hyperparameters.

    Args:
        x: (n, d) features in 0 … 1.
        y: (n,) values of mean 0 and variance 1.
        start: Hyperparameters to start from; those of a former fit are a good start.
        fit: Whether to fit them, or to take `start` as it is.
    """

    def __init__(
        self, x: np.ndarray, y: np.ndarray, start: np.ndarray | None = None, fit: bool = True
    ) -> None:
        from scipy.linalg import cho_solve, cholesky

        self.x = x
        self.kernel = _kernel(x.shape[1])
        if start is not None:
            self.kernel = self.kernel.clone_with_theta(start)
        if fit:
            chosen = np.linspace(0, len(x) - 1, min(len(x), MOST_TO_FIT)).astype(int)
            self.kernel = _fitted(self.kernel, x[chosen], y[chosen])
        self.theta = self.kernel.theta
        gram = self.kernel(x) + JITTER * np.eye(len(x))
        self._lower = cholesky(gram, lower=True)
        self.weights = cho_solve((self._lower, True), y)

    def whitened(self, cross: np.ndarray) -> np.ndarray:
        """(n, m) from the kernel (m, n) between points and data."""
        from scipy.linalg import solve_triangular

        solved: np.ndarray = solve_triangular(self._lower, cross.T, lower=True)
        return solved


class Posterior:
    """Means and deviations of points, which shrink as points are proposed.

    A proposal counts as if its mean had been measured: the others' means stay, and what is known
    of it is known of its neighbours.

    Args:
        process: The Gaussian process.
        points: (m, d) features.
    """

    def __init__(self, process: GaussianProcess, points: np.ndarray) -> None:
        self._process, self._points = process, points
        cross = process.kernel(points, process.x)
        self.mean: np.ndarray = cross @ process.weights
        self._whitened = process.whitened(cross)
        noise = process.kernel.k2.noise_level
        variance = process.kernel.diag(points) - noise - (self._whitened**2).sum(axis=0)
        self.variance: np.ndarray = np.maximum(variance, 1e-12)

    def propose(self, index: int) -> None:
        """Take one of the points as known."""
        kernel, x = self._process.kernel, self._points
        cross = kernel(x, x[index : index + 1])[:, 0]
        covariance = cross - self._whitened.T @ self._whitened[:, index]
        scale = np.sqrt(self.variance[index] + kernel.k2.noise_level + JITTER)
        update = covariance / scale
        self._whitened = np.vstack([self._whitened, update])
        self.variance = np.maximum(self.variance - update**2, 1e-12)

    def expected_improvement(self, best: float) -> np.ndarray:
        """(m,) how far above `best` each is expected to be, counting what is below as 0."""
        from scipy.stats import norm

        deviation = np.sqrt(self.variance)
        ahead = (self.mean - best) / deviation
        values: np.ndarray = deviation * (ahead * norm.cdf(ahead) + norm.pdf(ahead))
        return values


def _kernel(dimensions: int) -> Any:
    from sklearn.gaussian_process.kernels import (
        ConstantKernel,
        DotProduct,
        Matern,
        WhiteKernel,
    )

    smooth = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(
        np.full(dimensions, 1.0), (5e-2, 2e1), nu=2.5
    )
    trend = ConstantKernel(1.0, (1e-3, 1e2)) * DotProduct(1.0, (1e-2, 1e2))
    return (smooth + trend) + WhiteKernel(1e-2, (1e-5, 0.5))


def _fitted(kernel: Any, x: np.ndarray, y: np.ndarray) -> Any:
    from scipy.optimize import minimize
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor

    def search(objective: Any, start: np.ndarray, bounds: np.ndarray) -> tuple[Any, Any]:
        found = minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": FIT_ITERATIONS},
        )
        return found.x, found.fun

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound is no fault
        return GaussianProcessRegressor(kernel, alpha=JITTER, optimizer=search).fit(x, y).kernel_
