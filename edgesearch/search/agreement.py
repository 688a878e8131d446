"""The label-free score of a subnet: how close its embeddings are to the largest network's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from edgesearch.evaluate import compute_features
from edgesearch.space import Architecture
from edgesearch.supernet import SupernetWeights, recalibrate

ImagesAt = Callable[[int], torch.Tensor]
"""A resolution to normalised images (N, C, R, R), the same images each time."""


class Agreement:
    """Mean cosine between the embeddings of a subnet and those of the key encoder.

    The reference is embedded once; every candidate sees the same pixels, and gets normalisation
    statistics of its own from the same images, in the same batches.

    Source: DATA (CVPR 2022), section 3.3, the score for classification.

    Args:
        weights: The trained supernet.
        images_at: The images to compare on.
        calibration_at: The images for the normalisation statistics.
        batch_size: Images in each forward pass.
    """

    def __init__(
        self,
        weights: SupernetWeights,
        images_at: ImagesAt,
        calibration_at: ImagesAt,
        batch_size: int,
    ) -> None:
        self.weights = weights
        self.images_at = images_at
        self.calibration_at = calibration_at
        self.batch_size = batch_size
        self.reference = self._embed(weights.reference(), weights.space.largest.resolution)

    def __call__(self, architecture: Architecture) -> float:
        """The agreement of an architecture, in -1 … 1."""
        network = self.weights.embedder(architecture)
        return self.of_network(network, architecture.resolution)

    def of_network(self, network: nn.Module, resolution: int) -> float:
        """The agreement of any network that maps images to embeddings."""
        embeddings = self._embed(network, resolution)
        return float((embeddings * self.reference).sum(dim=1).mean())

    def _embed(self, network: nn.Module, resolution: int) -> torch.Tensor:
        network = network.to(memory_format=torch.channels_last)
        recalibrate(network, self.calibration_at(resolution), self.batch_size)
        return compute_features(network, self.images_at(resolution), self.batch_size)
