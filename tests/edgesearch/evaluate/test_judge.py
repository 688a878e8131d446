"""The kNN accuracy of subnets."""

import pytest
import torch
from torch import nn

from edgesearch.data.image_pool import ImagePool
from edgesearch.data.settings import DataSettings
from edgesearch.evaluate.judge import SubnetJudge
from edgesearch.evaluate.knn import knn_accuracy


@pytest.fixture(scope="module")
def judge():
    return SubnetJudge(ImagePool(DataSettings("digits"), 1, 0), 5, 64, 32)


class Flat(nn.Module):
    """Pixels through a batch normalisation whose statistics start out wrong."""

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(1)
        nn.init.constant_(self.bn.running_mean, 1e6)

    def forward(self, images):
        return self.bn(images).flatten(1)


def test_pixels_of_digits_tell_them_apart(judge):
    images = judge.images(8)
    train, test = (images.prepare(split).flatten(1) for split in (images.train, images.test))
    expected = knn_accuracy(train, images.train_labels, test, images.test_labels, 5)
    assert judge.knn(judge.pixels(8)) == expected > 0.9


def test_large_images_are_compared_averaged_down(judge):
    images = judge.images(64)
    train, test = (
        nn.functional.avg_pool2d(images.prepare(split), 2).flatten(1)
        for split in (images.train, images.test)
    )
    expected = knn_accuracy(train, images.train_labels, test, images.test_labels, 5)
    assert judge.knn(judge.pixels(64)) == expected


def test_networks_are_recalibrated(judge):
    network = Flat()
    assert judge.accuracy(network, 8) == pytest.approx(judge.knn(judge.pixels(8)), abs=0.02)
    calibration = judge.pool.sample(8, 0, 64)
    assert float(network.bn.running_mean) == pytest.approx(float(calibration.mean()), abs=1e-4)
    assert not torch.equal(network.bn.running_var, torch.ones(1))


def test_images_of_one_resolution_are_kept(judge):
    assert judge.images(8) is judge.images(8)
    judge.images(16)
    assert judge.images(16).train.shape[-1] == 16
