"""Extracted networks against the active subnets that they were taken from."""

import random

import pytest
import torch

from edgesearch.errors import SpaceError
from edgesearch.families import load_space
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.space import Architecture
from edgesearch.supernet.calibrate import recalibrate
from edgesearch.supernet.extract import copy_leading, extract
from edgesearch.supernet.supernet import Supernet

SPACES = {
    "tiny": load_space("resnet_tiny"),
    "small": load_space("resnet_small", in_channels=1),
    "bottleneck": ResNetSpace(
        name="bottleneck",
        block="bottleneck",
        stem="imagenet",
        stem_widths=(8, 16),
        stage_widths=((4, 8), (8, 12), (8, 16)),
        stage_depths=((1, 2), (2, 3), (1, 3)),
        resolutions=(45, 64),
    ),
}
SUPERNETS = {}


def images_of(space, architecture, count=4):
    generator = torch.Generator().manual_seed(7)
    side = architecture.resolution
    return torch.randn(count, space.in_channels, side, side, generator=generator)


def supernet_of(name):
    """A supernet that is random in every entry, statistics included."""
    if name not in SUPERNETS:
        torch.manual_seed(0)
        supernet = Supernet(SPACES[name]).eval()
        for key, tensor in supernet.backbone.state_dict().items():
            if tensor.dim() == 1:
                low = -0.2 if key.endswith(("bias", "mean")) else 0.5
                tensor.uniform_(low, low + 0.5)
        SUPERNETS[name] = supernet
    return SUPERNETS[name]


@pytest.fixture(params=SPACES)
def supernet(request):
    return supernet_of(request.param)


def some_of(space):
    rng = random.Random(2)
    return [space.largest, space.smallest, *(space.sample(rng) for _ in range(4))]


@torch.no_grad()
def test_equals_the_active_subnet(supernet):
    for architecture in some_of(supernet.space):
        images = images_of(supernet.space, architecture)
        supernet.activate(architecture)
        expected = supernet.eval()(images)
        network = extract(supernet.space, supernet.backbone.state_dict(), architecture)
        found = network(images)
        assert expected.abs().max() > 0.01
        assert found.shape == (4, supernet.space.feature_dim(architecture))
        assert (found - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_equals_the_active_subnet_with_statistics_of_the_batch(supernet):
    """One batch: calibrating the extracted network equals running the supernet in train mode."""
    for architecture in some_of(supernet.space):
        images = images_of(supernet.space, architecture, 8)
        network = extract(supernet.space, supernet.backbone.state_dict(), architecture)
        kept = {k: v.clone() for k, v in supernet.state_dict().items()}
        supernet.activate(architecture)
        expected = supernet.train()(images)
        supernet.load_state_dict(kept)
        found = network.train()(images)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)


@torch.no_grad()
def test_activating_another_between_leaves_no_trace(supernet):
    space = supernet.space
    images = images_of(space, space.largest)
    supernet.eval().activate(space.largest)
    before = supernet(images)
    for architecture in some_of(space):
        supernet.activate(architecture)
        supernet(images_of(space, architecture))
    supernet.activate(space.largest)
    assert supernet.active == space.largest
    assert torch.equal(supernet(images), before)


def test_weights_are_its_own():
    supernet = supernet_of("tiny")
    network = extract(supernet.space, supernet.backbone.state_dict(), supernet.space.largest)
    theirs = dict(supernet.backbone.named_parameters())
    before = {name: tensor.clone() for name, tensor in theirs.items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert all(torch.equal(theirs[name], before[name]) for name in theirs)


@torch.no_grad()
def test_recalibration_leaves_the_supernet_alone():
    supernet = supernet_of("tiny")
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    network = extract(supernet.space, supernet.backbone.state_dict(), supernet.space.largest)
    recalibrate(network, images_of(supernet.space, supernet.space.largest, 8))
    assert not torch.equal(network.bn1.running_mean, supernet.backbone.bn1.running_mean)
    after = supernet.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_is_plain_and_in_evaluation_mode():
    supernet = supernet_of("tiny")
    network = extract(supernet.space, supernet.backbone.state_dict(), supernet.space.smallest)
    kinds = {type(m).__name__ for m in network.modules()}
    assert kinds == {"ResNet", "ModuleList", "BasicBlock", "Conv2d", "BatchNorm2d", "Sequential"}
    assert not any(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_leaves_the_random_state_alone():
    supernet = supernet_of("tiny")
    state = torch.get_rng_state()
    extract(supernet.space, supernet.backbone.state_dict(), supernet.space.largest)
    assert torch.equal(torch.get_rng_state(), state)


def test_foreign_architecture():
    supernet = supernet_of("tiny")
    foreign = Architecture(8, (8, 16, 33), (1, 1, 1), 32)
    with pytest.raises(SpaceError, match="allows stage3_width"):
        extract(supernet.space, supernet.backbone.state_dict(), foreign)


def test_copy_leading_takes_the_first_entries():
    small, large = torch.nn.Linear(2, 3), torch.nn.Linear(4, 5)
    copy_leading(large.state_dict(), small)
    assert torch.equal(small.weight, large.weight[:3, :2])
    assert torch.equal(small.bias, large.bias[:3])
