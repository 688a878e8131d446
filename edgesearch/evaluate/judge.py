"""Accuracies of subnets."""

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


class LabelledFeatures(NamedTuple):
    """Features (N, D) of training images and (M, D) of test images, with int64 labels."""

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor


class SubnetJudge:
    """Measures accuracies; every network is recalibrated on the same images.

    Args:
        pool: The images of the run, with labels.
        settings: The section `evaluation`.
        calibration_images: Images for recalibration.
        batch_size: Images per pass of recalibration; other passes take up to twice as many.
        device: Device of the networks; features are returned on the CPU.
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
        """The labelled images at a resolution; those of the latest one are cached."""
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
        """Raw pixels as features, averaged to at most 32 × 32."""
        pixels = nn.Sequential(nn.AdaptiveAvgPool2d(min(resolution, 32)), nn.Flatten())
        return self.features_of_calibrated(pixels, resolution)

    def features_of_calibrated(self, network: nn.Module, resolution: int) -> LabelledFeatures:
        """Features of the labelled images; does not change the network."""
        images = self.images(resolution)

        def prepare(batch: torch.Tensor) -> torch.Tensor:
            return images.prepare(batch).to(self.device)

        at_once = min(256, 2 * self.batch_size)  # evaluation mode needs less memory
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
        """Linear-probe accuracy of features, in 0 … 1."""
        return linear_accuracy(*features, seed=self.pool.seed)
