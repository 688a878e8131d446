"""The accuracies of subnets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from edgesearch.data.image_pool import ImagePool, LabelledImages
from edgesearch.evaluate.features import compute_features
from edgesearch.evaluate.knn import knn_accuracy
from edgesearch.evaluate.linear import linear_accuracy
from edgesearch.evaluate.settings import EvaluationSettings
from edgesearch.supernet.calibrate import recalibrate

FORWARD_BATCH = 256
"""Images in each pass at most."""
PIXELS = 32
"""Height and width of images that are compared as they are."""


class LabelledFeatures(NamedTuple):
    """Features of training images and of images held out.

    Attributes:
        train: (N, D).
        train_labels: (N,) int64.
        test: (M, D).
        test_labels: (M,) int64.
    """

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor


class SubnetJudge:
    """Measures accuracies, every network recalibrated on the same images.

    Args:
        pool: The images of the run, with labels.
        settings: How accuracies are computed.
        calibration_images: Images for the normalisation statistics.
        batch_size: Images in each pass for the statistics, and half of those in any other.
        device: Where networks run; features come back from it.
    """

    def __init__(
        self,
        pool: ImagePool,
        settings: EvaluationSettings,
        calibration_images: int,
        batch_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.pool = pool
        self.settings = settings
        self.calibration_images = calibration_images
        self.batch_size = batch_size
        self.device = torch.device(device)
        self._labelled: dict[int, LabelledImages] = {}

    def images(self, resolution: int) -> LabelledImages:
        """The labelled images at a resolution; those of the last one are kept."""
        if resolution not in self._labelled:
            images = self.pool.labelled(
                resolution, self.settings.train_images, self.settings.test_images
            )
            self._labelled = {resolution: images}
        return self._labelled[resolution]

    def accuracy(self, network: nn.Module, resolution: int) -> float:
        """kNN accuracy of a network's features, in 0 … 1; recalibrates the network."""
        return self.knn(self.features(network, resolution))

    def features(self, network: nn.Module, resolution: int) -> LabelledFeatures:
        """Features of the labelled images; recalibrates the network."""
        calibration = self.pool.sample(resolution, 0, self.calibration_images)
        network.to(self.device)
        recalibrate(network, calibration.to(self.device), self.batch_size)
        return self.features_of_calibrated(network, resolution)

    def pixels(self, resolution: int) -> LabelledFeatures:
        """The pixels themselves, averaged down to 32 × 32 where there are more."""
        pixels = nn.Sequential(nn.AdaptiveAvgPool2d(min(resolution, PIXELS)), nn.Flatten())
        return self.features_of_calibrated(pixels, resolution)

    def features_of_calibrated(self, network: nn.Module, resolution: int) -> LabelledFeatures:
        """Features of the labelled images; the network is left as it is."""
        images = self.images(resolution)

        def prepare(batch: torch.Tensor) -> torch.Tensor:
            return images.prepare(batch).to(self.device)

        at_once = min(FORWARD_BATCH, 2 * self.batch_size)  # there is nothing to be normalised
        return LabelledFeatures(
            compute_features(network, images.train, at_once, prepare).cpu(),
            images.train_labels,
            compute_features(network, images.test, at_once, prepare).cpu(),
            images.test_labels,
        )

    def knn(self, features: LabelledFeatures) -> float:
        """kNN accuracy of features, in 0 … 1."""
        return knn_accuracy(
            *features, k=self.settings.knn_k, temperature=self.settings.knn_temperature
        )

    def linear(self, features: LabelledFeatures) -> float:
        """Accuracy of a linear probe of features, in 0 … 1."""
        return linear_accuracy(*features, seed=self.pool.seed)
