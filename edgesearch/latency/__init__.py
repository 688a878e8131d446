"""From a table of blocks to the latency of every architecture."""

from edgesearch.latency.correction import MIN_NETWORKS, Correction, fit_correction
from edgesearch.latency.latency_model import LatencyModel, LatencyPrediction

__all__ = ["MIN_NETWORKS", "Correction", "LatencyModel", "LatencyPrediction", "fit_correction"]
