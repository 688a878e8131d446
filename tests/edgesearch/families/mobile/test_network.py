"""Mobile networks: paddings, elastic kernels and optional convolutions."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from edgesearch.families import space_from_dict
from edgesearch.families.mobile.block import Convolution, MobileBlock
from edgesearch.families.mobile.network import ACTIVATIONS, MobileNetwork, Unit, tensorflow_pads
from edgesearch.families.mobile.space import ACTIVATION_NAMES
from edgesearch.space.network import PLAIN
from edgesearch.supernet.dynamic_ops import ELASTIC

LITTLE = space_from_dict(
    {"name": "little", "family": "mobile", "activation": "hard_swish", "resolutions": [32]}
    | {"stem_widths": [8], "stage_strides": [2, 1], "stage_widths": [[8, 16], [16]]}
    | {"stage_depths": [[1, 2], [1]], "stage_start_kernels": [[3, 5], [0, 3]]}
    | {"stage_kernels": [[0, 3, 7], [0, 3]], "stage_expansions": [[1, 2], [2]]}
    | {"head_widths": [16]}
)


@pytest.mark.parametrize(
    ("length", "kernel", "pads"),
    [(224, 3, (0, 1)), (224, 5, (1, 2)), (7, 3, (1, 1)), (7, 5, (2, 2)), (224, 7, (2, 3))],
)
def test_zeros_of_tensorflow(length, kernel, pads):
    assert tensorflow_pads(length, kernel, 2) == pads
    assert tensorflow_pads(length, kernel, 1) == (kernel // 2, kernel // 2)


def test_a_kernel_with_zeros_around_it_is_the_smaller_one_for_both_paddings():
    """So the centre of a kernel sees the same pixels, whatever the size of the map."""
    for tensorflow in (False, True):
        for side in (15, 16):
            small, large = (
                Unit(Convolution("", 4, 4, kernel, 2, True), PLAIN, "", tensorflow, 1e-5).eval()
                for kernel in (3, 5)
            )
            with torch.no_grad():
                large.conv.weight.copy_(F.pad(small.conv.weight, (1, 1, 1, 1)))
            images = torch.randn(2, 4, side, side)
            torch.testing.assert_close(large(images), small(images))


def test_names_of_activations():
    assert tuple(ACTIVATIONS) == ACTIVATION_NAMES


@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_swish"])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_gives_what_the_paper_says_and_leaves_its_input(activation, training):
    torch.manual_seed(0)
    block = MobileBlock("inverted", 16, 16, 1, 9, activation, 3, 3, 5, stage=1)
    blocks = LITTLE.blocks(LITTLE.largest)
    network = MobileNetwork([blocks[0], block, *blocks[-2:]]).train(training)
    module = network.stage1[0]
    x = (3 * torch.randn(4, 16, 9, 9)).requires_grad_()
    before = x.detach().clone()

    def unit(name, at):
        return module.get_submodule(name).norm(module.get_submodule(name).conv(at))

    act = {"relu": F.relu, "relu6": F.relu6, "hard_swish": F.hardswish}[activation]
    expected = unit("start", x)
    expected = act(unit("expand", expected))
    expected = act(unit("middle", expected))
    expected = unit("project", expected) + x
    outputs = module(x)
    assert torch.equal(outputs, expected)
    assert torch.equal(x, before)
    inputs = [x, *module.parameters()]
    gradients = torch.autograd.grad(outputs.square().sum(), inputs)
    plain = torch.autograd.grad(expected.square().sum(), inputs)
    assert all(torch.equal(a, b) for a, b in zip(gradients, plain, strict=True))


@torch.no_grad()
def test_stride_goes_to_the_first_convolution_where_there_is_no_middle_one():
    network = LITTLE.make_network(LITTLE.blocks(LITTLE.largest), ELASTIC).eval()
    images = torch.randn(2, 3, 32, 32)
    for kernel, strides in ((0, (2, None)), (3, (1, 2)), (7, (1, 2)), (0, (2, None))):
        chosen = LITTLE.from_choices({**LITTLE.largest, "stage1_kernel": kernel})
        network.activate(LITTLE.blocks(chosen))
        first = network.stage1[0]
        used = [first.start.conv.stride[0], first.middle.conv.stride[0] if kernel else None]
        assert (*used,) == strides
        assert network.forward_blocks(images)[1].shape == (2, 16, 8, 8)


def test_initial_activations_keep_their_scale():
    torch.manual_seed(0)
    own = {"activation": "relu", "stage_start_kernels": (), "stage_kernels": ((7,), (3,))}
    space = dataclasses.replace(LITTLE, **own)
    network = space.make_network(space.blocks(space.largest))
    images = torch.randn(8, 3, 32, 32)
    for conv in (network.stage1[1].middle.conv, network.stage1[1].expand.conv):
        inputs = torch.randn(8, conv.in_channels, 16, 16).relu()
        assert 0.3 < conv(inputs).var() < 2
    assert network(images).isfinite().all()
