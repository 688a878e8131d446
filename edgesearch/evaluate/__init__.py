"""What features are worth."""

from edgesearch.evaluate.features import compute_features
from edgesearch.evaluate.knn import knn_accuracy
from edgesearch.evaluate.linear import fit_linear, linear_accuracy

__all__ = ["compute_features", "fit_linear", "knn_accuracy", "linear_accuracy"]
