"""Residual networks against torchvision's, and at the beginning of a training."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

from edgesearch.families import load_space
from edgesearch.families.resnet.network import ResNet
from edgesearch.supernet.subnet import Subnet

RESNET50 = load_space("resnet50to101", stage_depths=[[3], [4], [6], [3]])


@torch.no_grad()
def test_resnet50_is_that_of_torchvision():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    theirs.fc = nn.Identity()
    architecture = RESNET50.from_text("stem64_w64-128-256-512_d3-4-6-3_r224")
    ours = ResNet(RESNET50.blocks(architecture)).eval()
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(ours(images), theirs(images))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet18", "stem64_w128-256-512_d2-2-2-2_r224"),
        ("resnet34", "stem64_w128-256-512_d3-4-6-3_r224"),
    ],
)
def test_small_members_are_those_of_torchvision(name, text):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None)
    theirs.fc = nn.Identity()
    theirs.train()(torch.randn(4, 3, 64, 64))  # statistics that are none of the initial ones
    space = load_space("resnet18to34")
    ours = ResNet(space.blocks(space.from_text(text))).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(ours(images), theirs.eval()(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["resnet_tiny", "resnet50to101"])
def test_a_block_gives_what_the_paper_says_and_leaves_its_input(name, training):
    space = load_space(name)
    torch.manual_seed(0)
    network = ResNet(space.blocks(space.largest)).train(training)
    for block in network.residual_blocks()[:2]:
        convs = [name for name, _ in block.named_children() if name.startswith("conv")]
        norms = [name.replace("conv", "bn") for name in convs]
        nn.init.ones_(block.get_submodule(norms[-1]).weight)
        x = torch.randn(4, block.conv1.in_channels, 9, 9, requires_grad=True)
        before = x.detach().clone()
        expected = x
        for conv, norm in zip(convs, norms, strict=True):
            inner = expected if conv == convs[0] else expected.relu()
            expected = block.get_submodule(norm)(block.get_submodule(conv)(inner))
        expected = (expected + (x if block.downsample is None else block.downsample(x))).relu()
        outputs = block(x)
        assert torch.equal(outputs, expected)
        assert torch.equal(x, before)
        inputs = [x, *block.parameters()]
        gradients = torch.autograd.grad(outputs.square().sum(), inputs)
        plain = torch.autograd.grad(expected.square().sum(), inputs)
        assert all(torch.equal(a, b) for a, b in zip(gradients, plain, strict=True))


@pytest.mark.parametrize("name", ["resnet_tiny", "resnet50to101"])
def test_initialisation(name):
    space = load_space(name)
    torch.manual_seed(0)
    network = ResNet(space.blocks(space.smallest))
    for block in network.residual_blocks():
        last = block.bn3 if space.block == "bottleneck" else block.bn2
        assert not last.weight.any()
        assert (block.bn1.weight == 1).all()
    images = torch.rand(2, last.num_features, 4, 4)
    if block.downsample is None:
        assert torch.equal(block(images), images)
    weight = network.get_submodule(list(network.stage_channels)[-1])[0].conv2.weight
    fan_out = weight.shape[0] * weight[0, 0].numel()
    assert float(weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


def test_names_in_a_subnet_are_those_of_torchvision():
    network = ResNet(RESNET50.blocks(RESNET50.smallest))
    subnet = Subnet(network, "logits", nn.Linear(network.feature_dim, 10))
    theirs = torchvision.models.resnet50()
    names = [name for name, _ in theirs.named_children() if name != "avgpool"]
    assert [name for name, _ in subnet.named_children()] == names
    ours = {name.split(".", 2)[-1] for name in subnet.state_dict() if name.startswith("layer")}
    assert ours == {name.split(".", 2)[-1] for name in theirs.state_dict() if "layer" in name}


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet_tiny", "resnet50to101"])
def test_torchvision_takes_maps_out_of_a_subnet(name):
    space = load_space(name)
    images = torch.randn(2, 3, 32, 32)
    subnet = Subnet(ResNet(space.blocks(space.smallest)), "stages").eval()
    wanted = {name: name for name in subnet.stage_names}
    taken = IntermediateLayerGetter(subnet, wanted)(images)
    for name, stage in zip(subnet.stage_names, subnet(images), strict=True):
        assert torch.equal(taken[name], stage)
