"""Elastic layers: each subnet uses the leading channels, and the centres of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.space.network import Layers

ONEDNN_CHANNEL_BLOCK = 16
"""With fewer input channels in channels_last memory, oneDNN's gradient of a strided 1×1 convolution
writes past its buffer: crashes and wrong gradients (oneDNN issue 6035, seen with version 3.13 on
AVX2). Subsampling the input before an unstrided convolution is equivalent and safe."""


class DynamicConv2d(nn.Conv2d):
    """A convolution over the input's channels, with leading outputs and the centre of its kernel.

    A depthwise one (`groups` is the number of channels) has as many outputs as inputs. Source:
    Once-for-All (ICLR 2020) for kernels as centres of larger ones, here without its transformation.

    Attributes:
        active_out_channels: Output channels in use; without meaning for a depthwise convolution.
        active_kernel_size: Height and width of the kernel in use.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
        )
        self.active_out_channels = out_channels
        self.active_kernel_size = kernel_size

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W'), C_out being active_out_channels, or C_in."""
        channels = input.shape[1]
        if self.groups > 1:
            weight, groups = _leading(self.weight, channels), channels
        else:
            weight, groups = _leading(self.weight, self.active_out_channels, channels), 1
        if self.active_kernel_size < self.kernel_size[0]:
            vertical, horizontal = centre(self.kernel_size, (self.active_kernel_size,) * 2)
            weight = weight[:, :, vertical, horizontal]
        is_narrow = channels < ONEDNN_CHANNEL_BLOCK
        if is_narrow and self.kernel_size == (1, 1) and self.stride != (1, 1):
            down, right = self.stride
            return F.conv2d(input[:, :, ::down, ::right], weight)
        return F.conv2d(input, weight, None, self.stride, self.padding, groups=groups)


def _leading(tensor: torch.Tensor, *lengths: int) -> torch.Tensor:
    """The leading entries along the first axes; no operation where these are all, which is faster.

    The gradient of a slice is as large as the whole tensor, and filled with zeros first.
    """
    for axis, length in enumerate(lengths):
        if length < tensor.shape[axis]:
            tensor = tensor.narrow(axis, 0, length)
    return tensor


def centre(lengths: Sequence[int], within: Sequence[int]) -> tuple[slice, ...]:
    """Slices of the middle `within` entries of axes of these lengths."""
    starts = [(length - kept) // 2 for length, kept in zip(lengths, within, strict=True)]
    return tuple(slice(start, start + kept) for start, kept in zip(starts, within, strict=True))


@dataclass
class BatchGroups:
    """Which images of a pass are normalised together in training.

    A group is a run of consecutive images of the global batch, so it does not depend on how the
    batch is split over processes and passes. The running statistics are updated once per step,
    towards the mean over all groups.

    Source: Ioffe and Szegedy (ICML 2015) for batch normalisation; Hoffer et al., "Train longer,
    generalize better" (NeurIPS 2017), section 4, for groups of a fixed size.

    Attributes:
        size: Images in a group, a divisor of those in a pass; None for the whole pass.
        part: Index of the current pass.
        parts: Passes per step.
    """

    size: int | None = None
    part: int = 0
    parts: int = 1

    def count(self, images: int) -> int:
        """Number of groups in a pass of `images`."""
        return 1 if self.size is None else max(1, images // self.size)

    def momentum(self, momentum: float, group: int, groups: int) -> float:
        """Momentum of the update by group `group` of `groups` in a pass.

        All groups of a step weigh the same; the whole step has `momentum`.
        """
        count = self.parts * groups
        before = self.part * groups + group
        return momentum / (count * (1 - momentum) + momentum * (before + 1))


def set_batch_groups(module: nn.Module, groups: BatchGroups | None) -> None:
    """Set the groups of all normalisations of a module; None for whole passes."""
    for norm in module.modules():
        if isinstance(norm, DynamicBatchNorm2d | GroupedBatchNorm1d):
            norm.groups = groups


def _batch_norm(
    norm: nn.BatchNorm1d | nn.BatchNorm2d,
    input: torch.Tensor,
    groups: BatchGroups | None,
    images: int,
) -> torch.Tensor:
    """Batch normalisation with the leading entries of parameters and statistics."""
    channels = input.shape[1]
    assert norm.running_mean is not None and norm.running_var is not None
    statistics = _leading(norm.running_mean, channels), _leading(norm.running_var, channels)
    scales = _leading(norm.weight, channels), _leading(norm.bias, channels)
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
    """Batch normalisation with the leading entries of its parameters and statistics.

    All subnets share the running statistics, which fit none: `recalibrate` an extracted subnet
    before evaluation.
    """

    groups: BatchGroups | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same shape, C at most `num_features`."""
        return _batch_norm(self, input, self.groups, len(input))


ELASTIC = Layers(DynamicConv2d, DynamicBatchNorm2d)
"""Layers of a supernet."""


class GroupedBatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation of rows, optionally in groups of images."""

    groups: BatchGroups | None = None

    def forward(self, input: torch.Tensor, places: int = 1) -> torch.Tensor:
        """(N · places, C) to the same shape; rows of an image are consecutive."""
        if self.groups is None or not self.training:
            return super().forward(input)
        if self.groups.part == 0 and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return _batch_norm(self, input, self.groups, len(input) // places)


class DynamicLinear(nn.Linear):
    """A linear layer over as many leading input features as it receives."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, D_in) to (N, out_features), D_in at most `in_features`."""
        return F.linear(input, self.weight[:, : input.shape[1]], self.bias)
