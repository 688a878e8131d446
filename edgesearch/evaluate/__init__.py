"""What features are worth."""

from edgesearch.evaluate.features import compute_features
from edgesearch.evaluate.knn import knn_accuracy
from edgesearch.evaluate.linear import fit_linear, linear_accuracy, require_two_classes
from edgesearch.evaluate.rank_correlation import (
    Estimate,
    RankCorrelation,
    kendall_tau,
    rank_correlations,
)

__all__ = [
    "Estimate",
    "RankCorrelation",
    "compute_features",
    "fit_linear",
    "kendall_tau",
    "knn_accuracy",
    "linear_accuracy",
    "rank_correlations",
    "require_two_classes",
]
