"""Plain networks against torchvision's."""

import pytest
import torch
import torchvision

from edgesearch.families import load_space
from edgesearch.families.resnet.network import ResNet
from edgesearch.space import Architecture, Block

RESNET50 = Architecture(64, (64, 128, 256, 512), (3, 4, 6, 3), 224)


@torch.no_grad()
def test_resnet50_is_that_of_torchvision():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    theirs.fc = torch.nn.Identity()
    ours = ResNet(load_space("resnet50to101").blocks(RESNET50)).eval()
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(ours(images), theirs(images))


@torch.no_grad()
def test_output_of_each_block_has_the_shape_that_the_space_names():
    for name in ("resnet50to101", "resnet_tiny"):
        space = load_space(name)
        blocks = space.blocks(space.smallest)
        network = ResNet(blocks).eval()
        outputs = network.forward_blocks(torch.randn(1, 3, 75, 75))
        assert len(outputs) == len(blocks)
        side = 75
        for block, output in zip(blocks[:-1], outputs[:-1], strict=True):
            side = Block(block.kind, 1, 1, 1, block.stride, side).out_hw
            assert output.shape == (1, block.out_channels, side, side)
        torch.testing.assert_close(outputs[-1], outputs[-2].mean(dim=(2, 3)))
        torch.testing.assert_close(network(torch.zeros(1, 3, 75, 75)).shape[1], network.feature_dim)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["resnet_tiny", "resnet50to101"])
def test_a_block_gives_what_the_paper_says_and_leaves_its_input(name, training):
    space = load_space(name)
    torch.manual_seed(0)
    network = ResNet(space.blocks(space.largest)).train(training)
    for block in network.residual_blocks()[:2]:
        convs = [name for name, _ in block.named_children() if name.startswith("conv")]
        norms = [name.replace("conv", "bn") for name in convs]
        torch.nn.init.ones_(block.get_submodule(norms[-1]).weight)
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
    weight = network.get_submodule(network.stage_names[-1])[0].conv2.weight
    fan_out = weight.shape[0] * weight[0, 0].numel()
    assert float(weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
