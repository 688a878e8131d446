"""Dynamic layers against slices taken by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F

from edgesearch.space.network import set_kernel
from edgesearch.supernet.dynamic_ops import (
    BatchGroups,
    DynamicBatchNorm2d,
    DynamicConv2d,
    DynamicLinear,
    GroupedBatchNorm1d,
    set_batch_groups,
)


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


@pytest.mark.parametrize(("kernel", "kept"), [(3, slice(2, 5)), (5, slice(1, 6)), (7, slice(7))])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolution_uses_the_centre_of_its_kernel(kernel, kept, stride):
    conv = DynamicConv2d(8, 8, 7, 1, 3, groups=8)
    set_kernel(conv, kernel, stride, kernel // 2)
    images = torch.randn(2, 5, 9, 9)
    weight = conv.weight[:5, :, kept, kept].detach().clone().requires_grad_()
    expected = F.conv2d(images, weight, stride=stride, padding=kernel // 2, groups=5)
    found = conv(images)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(conv.weight.grad[:5, :, kept, kept], weight.grad)
    conv.weight.grad[:5, :, kept, kept] = 0
    assert not conv.weight.grad.any()


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


class TestGroups:
    def by_hand(self, norm, groups):
        """Each group normalised alone, and running statistics towards the mean over groups."""
        plain = copy.deepcopy(norm)
        plain.groups = None
        outputs, means, variances = [], [], []
        for group in groups:
            alone = copy.deepcopy(plain)
            outputs.append(alone(group))
            means.append(alone.running_mean)
            variances.append(alone.running_var)
        return torch.cat(outputs), torch.stack(means).mean(0), torch.stack(variances).mean(0)

    def test_images_are_normalised_with_those_of_their_group(self):
        norm, images = DynamicBatchNorm2d(5), 3 * torch.randn(12, 4, 3, 3)
        torch.nn.init.uniform_(norm.weight)
        expected, mean, variance = self.by_hand(norm, images.split(4))
        set_batch_groups(norm, BatchGroups(4))
        found = norm(images)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)
        assert not torch.allclose(found[:4], DynamicBatchNorm2d(5)(images)[:4], atol=1e-2)

    def test_statistics_do_not_depend_on_the_passes(self):
        images = torch.randn(12, 4, 3, 3)
        whole, parts = DynamicBatchNorm2d(4), DynamicBatchNorm2d(4)
        set_batch_groups(whole, BatchGroups(2))
        groups = BatchGroups(2, parts=3)
        set_batch_groups(parts, groups)
        whole(images)
        for groups.part, part in enumerate(images.split(4)):
            parts(part)
        torch.testing.assert_close(parts.running_mean, whole.running_mean)
        torch.testing.assert_close(parts.running_var, whole.running_var)

    def test_rows_of_an_image_stay_together(self):
        norm, rows = GroupedBatchNorm1d(5), torch.randn(6 * 4, 5)
        expected, mean, _ = self.by_hand(norm, rows.split(2 * 4))
        set_batch_groups(norm, BatchGroups(2))
        torch.testing.assert_close(norm(rows, 4), expected)
        torch.testing.assert_close(norm.running_mean, mean)
        assert norm.num_batches_tracked == 1

    @pytest.mark.parametrize("groups", [None, BatchGroups(), BatchGroups(8)])
    def test_one_group_changes_no_bit(self, groups):
        images = torch.randn(8, 4, 3, 3)
        for kind, data in (
            (DynamicBatchNorm2d, images),
            (GroupedBatchNorm1d, images.flatten(1)[:, :4]),
        ):
            norm, plain = kind(4), kind(4)
            set_batch_groups(norm, groups)
            assert torch.equal(norm(data), plain(data))
            for name, value in plain.state_dict().items():
                assert torch.equal(norm.state_dict()[name], value)

    def test_evaluation_knows_no_groups(self):
        norm, images = DynamicBatchNorm2d(4).eval(), torch.randn(8, 4, 3, 3)
        set_batch_groups(norm, BatchGroups(2))
        assert torch.equal(norm(images), DynamicBatchNorm2d(4).eval()(images))
        assert norm.running_mean.eq(0).all()
