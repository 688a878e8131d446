"""What features are worth."""

from edgesearch.evaluate.features import compute_features
from edgesearch.evaluate.knn import knn_accuracy

__all__ = ["compute_features", "knn_accuracy"]
