"""Activation of subnets, and where gradients go."""

import pytest
import torch

from edgesearch.errors import SpaceError
from edgesearch.families import load_space
from edgesearch.space import Architecture
from edgesearch.supernet.supernet import Supernet

SPACE = load_space("resnet_tiny")


@pytest.fixture
def supernet():
    torch.manual_seed(0)
    net = Supernet(SPACE)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)  # not 0 in any block: gradients reach everything
    return net


def test_begins_with_the_largest(supernet):
    assert supernet.active == SPACE.largest
    assert supernet(torch.zeros(2, 3, 32, 32)).shape == (2, supernet.feature_dim)
    assert supernet.feature_dim == 96


def test_features_are_the_means_of_the_last_map(supernet):
    supernet.activate(SPACE.smallest)
    images = torch.randn(2, 3, 32, 32)
    features = supernet.eval().feature_map(images)
    assert features.shape == (2, 32, 4, 4)
    torch.testing.assert_close(features.mean(dim=(2, 3)), supernet(images))


def test_foreign_architecture_changes_nothing(supernet):
    foreign = Architecture(8, (8, 16, 32), (1, 1, 3), 32)
    with pytest.raises(SpaceError, match="allows stage3_depth"):
        supernet.activate(foreign)
    assert supernet.active == SPACE.largest
    assert supernet(torch.zeros(2, 3, 32, 32)).shape == (2, 96)


def test_gradients_reach_the_active_slices_only(supernet):
    architecture = Architecture(8, (16, 32, 64), (1, 2, 1), 32)
    supernet.activate(architecture)
    supernet(torch.randn(4, 3, 32, 32)).square().sum().backward()
    backbone = supernet.backbone
    active = {
        "conv1.weight": (8, 3),
        "layer1.0.conv1.weight": (16, 8),
        "layer2.0.conv1.weight": (32, 16),
        "layer2.0.downsample.0.weight": (32, 16),
        "layer2.1.conv2.weight": (32, 32),
        "layer3.0.conv2.weight": (64, 64),
        "layer3.0.bn1.weight": (64,),
    }
    for name, sizes in active.items():
        grad = backbone.get_parameter(name).grad.clone()
        used = tuple(slice(0, size) for size in sizes)
        assert grad[used].abs().amax(dim=tuple(range(2, grad.dim()))).min() > 0, name
        grad[used] = 0
        assert not grad.any(), name
    for name in ("layer1.1.conv1.weight", "layer3.1.bn2.weight"):
        assert backbone.get_parameter(name).grad is None


def test_blocks_start_as_identities():
    """The last scale of each block is 0 at first: a block gives its shortcut."""
    torch.manual_seed(0)
    block = Supernet(SPACE).backbone.layer2[1]
    images = torch.rand(2, 48, 4, 4)
    assert torch.equal(block(images), images)
