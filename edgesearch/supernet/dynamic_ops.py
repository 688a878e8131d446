"""Layers whose width can be cut down at run time: each subnet uses the leading channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.space.network import Layers

_ONEDNN_CHANNEL_BLOCK = 16
"""With fewer input channels oneDNN's gradient of a strided 1×1 convolution writes past its buffer
when the memory format is channels_last: crashes and wrong gradients (its issue 6035, seen with
version 3.13 on AVX2). A convolution of every second pixel is the same, and safe."""


class DynamicConv2d(nn.Conv2d):
    """A convolution that uses the leading input and output channels of its weight.

    The number of input channels follows the input, that of the output is `active_out_channels`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.active_out_channels = out_channels

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) to (N, active_out_channels, H', W')."""
        weight = self.weight[: self.active_out_channels, : input.shape[1]]
        if self.kernel_size == (1, 1) and input.shape[1] < _ONEDNN_CHANNEL_BLOCK:
            vertical, horizontal = self.stride
            return F.conv2d(input[:, :, ::vertical, ::horizontal], weight)
        return F.conv2d(input, weight, None, self.stride, self.padding)


@dataclass
class BatchGroups:
    """Which images of a pass are normalised together in training.

    Groups are runs of images, so that they do not depend on how a batch is spread over processes
    and passes. The running statistics move once in a step, towards the mean over its groups.

    Source: Ioffe and Szegedy (ICML 2015) for the normalisation; Hoffer et al., "Train longer,
    generalize better" (NeurIPS 2017), section 4, for groups of a fixed size.

    Attributes:
        size: Images in a group, a divisor of those in a pass; None for all in a pass.
        part: Number of the present pass among those that a batch is cut into.
        parts: Number of these passes.
    """

    size: int | None = None
    part: int = 0
    parts: int = 1

    def count(self, images: int) -> int:
        """Number of groups in a pass of so many images."""
        return 1 if self.size is None else max(1, images // self.size)

    def momentum(self, momentum: float, group: int, groups: int) -> float:
        """Share of a group's statistics in the running ones, such that all groups count alike.

        Args:
            momentum: Share of all groups of a step together.
            group: Number of the group in its pass.
            groups: Number of groups in each pass.
        """
        count = self.parts * groups
        before = self.part * groups + group
        return momentum / (count * (1 - momentum) + momentum * (before + 1))


def set_batch_groups(module: nn.Module, groups: BatchGroups | None) -> None:
    """Let all normalisations in a module go by the same groups; None for whole passes."""
    for norm in module.modules():
        if isinstance(norm, DynamicBatchNorm2d | GroupedBatchNorm1d):
            norm.groups = groups


def _batch_norm(
    norm: nn.BatchNorm1d | nn.BatchNorm2d,
    input: torch.Tensor,
    groups: BatchGroups | None,
    images: int,
) -> torch.Tensor:
    """Normalise a pass of so many images by the leading entries of parameters and statistics."""
    channels = input.shape[1]
    assert norm.running_mean is not None and norm.running_var is not None
    statistics = norm.running_mean[:channels], norm.running_var[:channels]
    scales = norm.weight[:channels], norm.bias[:channels]
    momentum = norm.momentum if norm.momentum is not None else 0.1
    if groups is None or not norm.training:
        return F.batch_norm(input, *statistics, *scales, norm.training, momentum, norm.eps)
    count = groups.count(images)
    normalised = [
        F.batch_norm(
            part, *statistics, *scales, True, groups.momentum(momentum, number, count), norm.eps
        )
        for number, part in enumerate(input.chunk(count))
    ]
    return normalised[0] if count == 1 else torch.cat(normalised)


class DynamicBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that uses the leading entries of its parameters and statistics.

    The running statistics are shared by all subnets and so are right for none: `recalibrate`
    an extracted subnet before it is evaluated.
    """

    groups: BatchGroups | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same shape, C being at most `num_features`."""
        return _batch_norm(self, input, self.groups, len(input))


ELASTIC = Layers(DynamicConv2d, DynamicBatchNorm2d)
"""What supernets are built of."""


class GroupedBatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation of rows that can go by groups of images."""

    groups: BatchGroups | None = None

    def forward(self, input: torch.Tensor, places: int = 1) -> torch.Tensor:
        """(N · places, C) to the same shape, the places of an image one after another."""
        if self.groups is None or not self.training:
            return super().forward(input)
        if self.groups.part == 0 and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return _batch_norm(self, input, self.groups, len(input) // places)


class DynamicLinear(nn.Linear):
    """A linear layer that uses as many of its leading input features as it is given."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, D_in) to (N, out_features), D_in being at most `in_features`."""
        return F.linear(input, self.weight[:, : input.shape[1]], self.bias)
