"""Supernets and what is cut out of them; activation is in `families/test_conformance.py`."""

import pytest
import torch

from edgesearch.families import load_space
from edgesearch.supernet.supernet import Supernet
from edgesearch.supernet.weights import copy_leading, extract

SPACE = load_space("resnet_tiny")


@pytest.fixture
def supernet():
    return Supernet(SPACE)


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


def test_an_extracted_network_has_weights_of_its_own_and_draws_nothing(supernet):
    state = torch.get_rng_state()
    network = extract(SPACE, supernet.backbone.state_dict(), SPACE.largest)
    assert torch.equal(torch.get_rng_state(), state)
    before = {name: t.clone() for name, t in supernet.backbone.named_parameters()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert all(torch.equal(t, before[name]) for name, t in supernet.backbone.named_parameters())


def test_copy_leading_takes_the_first_entries():
    small, large = torch.nn.Linear(2, 3), torch.nn.Linear(4, 5)
    copy_leading(large.state_dict(), small)
    assert torch.equal(small.weight, large.weight[:3, :2])
    assert torch.equal(small.bias, large.bias[:3])


def test_copy_leading_takes_the_centres_of_kernels():
    small, large = torch.nn.Conv2d(2, 3, 3), torch.nn.Conv2d(4, 5, 7)
    copy_leading(large.state_dict(), small)
    assert torch.equal(small.weight, large.weight[:3, :2, 2:5, 2:5])
