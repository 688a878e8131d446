"""The kNN accuracy of subnets."""

from __future__ import annotations

from torch import nn

from edgesearch.evaluate import compute_features, knn_accuracy
from edgesearch.supernet import recalibrate
from edgesearch.workflow.image_pool import ImagePool, LabelledImages


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
        images = self.images(resolution)
        return knn_accuracy(
            compute_features(network, images.train),
            images.train_labels,
            compute_features(network, images.test),
            images.test_labels,
            self.k,
        )

    def pixel_accuracy(self, resolution: int) -> float:
        """kNN accuracy of the raw pixels."""
        images = self.images(resolution)
        return knn_accuracy(
            images.train.flatten(1),
            images.train_labels,
            images.test.flatten(1),
            images.test_labels,
            self.k,
        )
