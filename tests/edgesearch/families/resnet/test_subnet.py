"""A subnet with torchvision's names against the network that it is made of."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter

from edgesearch.families import load_space
from edgesearch.families.resnet.network import ResNet
from edgesearch.supernet.subnet import Subnet


@pytest.fixture(params=["resnet_tiny", "resnet50to101"])
def network(request):
    space = load_space(request.param)
    torch.manual_seed(0)
    network = ResNet(space.blocks(space.smallest)).eval()
    for module in network.modules():  # at first blocks are their shortcuts, with scales of zero
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


@torch.no_grad()
def test_each_output_is_that_of_the_network(network):
    images = torch.randn(2, network.conv1.in_channels, 32, 32)
    expected = network(images)
    fc, projector = nn.Linear(network.feature_dim, 3), nn.Linear(network.feature_dim, 5)
    outputs = {
        name: Subnet(network, name, fc, projector).eval()(images)
        for name in ("features", "logits", "embeddings", "stages")
    }
    assert torch.equal(outputs["features"], expected)
    assert torch.equal(outputs["logits"], fc(expected))
    assert torch.equal(outputs["embeddings"], projector(expected))
    subnet = Subnet(network)
    assert [stage.shape[1] for stage in outputs["stages"]] == subnet.stage_channels
    assert torch.equal(outputs["stages"][-1].mean(dim=(2, 3)), expected)
    assert all(stage.abs().max() > 0 for stage in outputs["stages"])


def test_names_are_those_of_torchvision():
    space = load_space("resnet50to101")
    network = ResNet(space.blocks(space.smallest))
    subnet = Subnet(network, "logits", nn.Linear(network.feature_dim, 10))
    theirs = resnet50()
    names = [name for name, _ in theirs.named_children() if name != "avgpool"]
    assert [name for name, _ in subnet.named_children()] == names
    ours = {name.split(".", 2)[-1] for name in subnet.state_dict() if name.startswith("layer")}
    assert ours == {name.split(".", 2)[-1] for name in theirs.state_dict() if "layer" in name}


@torch.no_grad()
def test_torchvision_takes_features_out_of_it(network):
    images = torch.randn(2, network.conv1.in_channels, 32, 32)
    subnet = Subnet(network, "stages").eval()
    wanted = {name: name for name in subnet.stage_names}
    taken = IntermediateLayerGetter(subnet, wanted)(images)
    for name, stage in zip(subnet.stage_names, subnet(images), strict=True):
        assert torch.equal(taken[name], stage)
