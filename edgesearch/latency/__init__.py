"""From a table of blocks to the latency of every architecture."""

from edgesearch.latency.correction import MIN_NETWORKS, BlockSums, Correction, fit_correction
from edgesearch.latency.latency_model import LatencyModel, LatencyPrediction
from edgesearch.latency.prediction_error import PredictionError, prediction_error

__all__ = [
    "MIN_NETWORKS",
    "BlockSums",
    "Correction",
    "LatencyModel",
    "LatencyPrediction",
    "PredictionError",
    "fit_correction",
    "prediction_error",
]
