"""Dynamic layers against slices taken by hand."""

import pytest
import torch
import torch.nn.functional as F

from edgesearch.supernet import DynamicBatchNorm2d, DynamicConv2d, DynamicLinear


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_convolution_uses_the_leading_channels():
    conv = DynamicConv2d(8, 12, 3, 2, 1)
    conv.active_out_channels = 5
    images = torch.randn(2, 3, 9, 9)
    expected = F.conv2d(images, conv.weight[:5, :3].detach().clone(), stride=2, padding=1)
    assert expected.shape == (2, 5, 5, 5)
    torch.testing.assert_close(conv(images), expected)


def test_convolution_at_full_width():
    conv = DynamicConv2d(8, 12, 1, 1, 0)
    images = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(conv(images), F.conv2d(images, conv.weight))


def test_gradient_of_a_convolution_stays_in_the_slice():
    conv = DynamicConv2d(8, 12, 3, 1, 1)
    conv.active_out_channels = 5
    conv(torch.randn(2, 3, 9, 9)).square().sum().backward()
    assert (conv.weight.grad[:5, :3] != 0).all()
    conv.weight.grad[:5, :3] = 0
    assert (conv.weight.grad == 0).all()


def test_gradient_of_a_narrow_strided_pointwise_convolution():
    # Taken as it is, torch's convolution corrupts the memory of the process here on AVX2.
    conv = DynamicConv2d(8, 16, 1, 2, 0)
    conv.active_out_channels = 8
    for _ in range(40):
        images = torch.randn(64, 4, 16, 16).to(memory_format=torch.channels_last)
        conv.weight.grad = None
        conv(images).square().sum().backward()
        weight = conv.weight[:8, :4, 0, 0].detach().double().requires_grad_()
        expected = torch.einsum("oc,nchw->nohw", weight, images[:, :, ::2, ::2].double())
        expected.square().sum().backward()
        found = conv.weight.grad[:8, :4, 0, 0].double()
        torch.testing.assert_close(found, weight.grad, rtol=1e-3, atol=1e-3 * len(images))


@pytest.mark.parametrize("training", [True, False])
def test_normalisation_uses_the_leading_entries(training):
    norm, plain = DynamicBatchNorm2d(8), torch.nn.BatchNorm2d(3)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        torch.nn.init.uniform_(tensor, 0.5, 1.5)
    rest = {name: value[3:].clone() for name, value in norm.state_dict().items() if value.dim()}
    for name, value in plain.state_dict().items():
        value.copy_(norm.state_dict()[name][: len(value)] if value.dim() else value)
    images = 2 + torch.randn(4, 3, 5, 5)
    expected = plain.train(training)(images)
    torch.testing.assert_close(norm.train(training)(images), expected)
    torch.testing.assert_close(norm.running_mean[:3], plain.running_mean)
    torch.testing.assert_close(norm.running_var[:3], plain.running_var)
    for name, value in rest.items():
        assert torch.equal(norm.state_dict()[name][3:], value)


def test_gradient_of_a_normalisation_stays_in_the_slice():
    norm = DynamicBatchNorm2d(8)
    (norm(torch.randn(4, 3, 5, 5)) ** 3).sum().backward()
    for grad in (norm.weight.grad, norm.bias.grad):
        assert (grad[:3] != 0).all()
        assert (grad[3:] == 0).all()


def test_linear_uses_the_leading_features():
    linear = DynamicLinear(8, 4)
    features = torch.randn(2, 5)
    expected = features @ linear.weight[:, :5].T + linear.bias
    torch.testing.assert_close(linear(features), expected)
    linear(features).sum().backward()
    assert (linear.weight.grad[:, :5] != 0).all()
    assert (linear.weight.grad[:, 5:] == 0).all()
