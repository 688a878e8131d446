"""The kNN accuracy of subnets."""

from __future__ import annotations

from torch import nn

from edgesearch.evaluate import compute_features, knn_accuracy
from edgesearch.supernet import recalibrate
from edgesearch.workflow.image_pool import ImagePool, LabelledImages

PIXELS = 32
"""Height and width of images that are compared as they are."""


class SubnetJudge:
    """Measures kNN accuracies, every network recalibrated on the same images.

    Args:
        pool: The images of the run, with labels.
        k: Neighbours.
        calibration_images: Images for the normalisation statistics.
        batch_size: Images in each forward pass.
    """

    def __init__(self, pool: ImagePool, k: int, calibration_images: int, batch_size: int) -> None:
        self.pool = pool
        self.k = k
        self.calibration_images = calibration_images
        self.batch_size = batch_size
        self._labelled: dict[int, LabelledImages] = {}

    def images(self, resolution: int) -> LabelledImages:
        """The labelled images at a resolution; those of the last one are kept."""
        if resolution not in self._labelled:
            self._labelled = {resolution: self.pool.labelled(resolution)}
        return self._labelled[resolution]

    def accuracy(self, network: nn.Module, resolution: int) -> float:
        """kNN accuracy of a network's features, in 0 … 1; recalibrates the network."""
        calibration = self.pool.sample(resolution, 0, self.calibration_images)
        recalibrate(network, calibration, self.batch_size)
        return self._accuracy(network, self.images(resolution))

    def pixel_accuracy(self, resolution: int) -> float:
        """kNN accuracy of the pixels themselves, averaged down to 32 × 32 where there are more."""
        pixels = nn.Sequential(nn.AdaptiveAvgPool2d(min(resolution, PIXELS)), nn.Flatten())
        return self._accuracy(pixels, self.images(resolution))

    def _accuracy(self, network: nn.Module, images: LabelledImages) -> float:
        return knn_accuracy(
            compute_features(network, images.train, prepare=images.prepare),
            images.train_labels,
            compute_features(network, images.test, prepare=images.prepare),
            images.test_labels,
            self.k,
        )
