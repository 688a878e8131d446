"""A Gaussian process over encoded architectures, fitted by scikit-learn, for batches of proposals.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), algorithm 2.1.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

MOST_TO_FIT = 200
"""Maximum points for fitting length scales, which takes O(n³) time."""
FIT_ITERATIONS = 40
JITTER = 1e-8


def fit_process(
    x: np.ndarray, y: np.ndarray, theta: np.ndarray | None = None, *, anew: bool = True
) -> GaussianProcessRegressor:
    """Fit a Gaussian process: linear trend, Matérn kernel with a length scale per feature, noise.

    Features (n, d) in 0 … 1, values (n,) of mean 0 and variance 1. Hyperparameters start from
    `theta`; they are optimised by marginal likelihood if `anew`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor

    kernel = _kernel(x.shape[1])
    if theta is not None:
        kernel = kernel.clone_with_theta(theta)
    chosen = np.linspace(0, len(x) - 1, min(len(x), MOST_TO_FIT)).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # a length scale at its bound is acceptable
        if anew:
            fitted = GaussianProcessRegressor(kernel, alpha=JITTER, optimizer=_maximise)
            kernel = fitted.fit(x[chosen], y[chosen]).kernel_
            if len(chosen) == len(x):
                return fitted
        return GaussianProcessRegressor(kernel, alpha=JITTER, optimizer=None).fit(x, y)


class Posterior:
    """Posterior mean and variance at points (m, d), updated as points are proposed.

    A proposed point counts as measured at its mean (kriging believer): means stay, variances
    shrink.
    """

    def __init__(self, process: GaussianProcessRegressor, points: np.ndarray) -> None:
        from scipy.linalg import solve_triangular

        self._kernel, self._points = process.kernel_, points
        cross = self._kernel(points, process.X_train_)
        self.mean: np.ndarray = cross @ process.alpha_
        self._whitened = solve_triangular(process.L_, cross.T, lower=True)
        noise = self._kernel.k2.noise_level
        variance = self._kernel.diag(points) - noise - (self._whitened**2).sum(axis=0)
        self.variance: np.ndarray = np.maximum(variance, 1e-12)

    def propose(self, index: int) -> None:
        """Condition on a point, at its mean."""
        kernel = self._kernel
        cross = kernel(self._points, self._points[index : index + 1])[:, 0]
        covariance = cross - self._whitened.T @ self._whitened[:, index]
        scale = np.sqrt(self.variance[index] + kernel.k2.noise_level + JITTER)
        update = covariance / scale
        self._whitened = np.vstack([self._whitened, update])
        self.variance = np.maximum(self.variance - update**2, 1e-12)

    def expected_improvement(self, best: float) -> np.ndarray:
        """(m,) expected improvement over `best`."""
        from scipy.stats import norm

        deviation = np.sqrt(self.variance)
        ahead = (self.mean - best) / deviation
        values: np.ndarray = deviation * (ahead * norm.cdf(ahead) + norm.pdf(ahead))
        return values


def _kernel(dimensions: int) -> Any:
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

    smooth = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(
        np.full(dimensions, 1.0), (5e-2, 2e1), nu=2.5
    )
    trend = ConstantKernel(1.0, (1e-3, 1e2)) * DotProduct(1.0, (1e-2, 1e2))
    return (smooth + trend) + WhiteKernel(1e-2, (1e-5, 0.5))


def _maximise(objective: Any, start: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
    from scipy.optimize import minimize

    options = {"maxiter": FIT_ITERATIONS}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return found.x, found.fun
