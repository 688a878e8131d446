"""Features of many images."""

import pytest
import torch

from edgesearch.evaluate.features import compute_features
from edgesearch.families import load_space
from edgesearch.families.resnet.network import ResNet

SPACE = load_space("resnet_tiny")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResNet(SPACE.blocks(SPACE.smallest))


def test_batches_do_not_matter(network):
    images = torch.randn(10, 3, 32, 32)
    expected = network.eval()(images).detach()
    features = compute_features(network, images, batch_size=4)
    torch.testing.assert_close(features, expected)
    assert not features.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_runs_in_evaluation_mode_and_restores_the_mode(network, training):
    network.train(training)
    before = network.bn1.running_mean.clone()
    compute_features(network, torch.randn(4, 3, 32, 32))
    assert {module.training for module in network.modules()} == {training}
    assert torch.equal(network.bn1.running_mean, before)
