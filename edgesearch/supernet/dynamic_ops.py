"""Layers whose width can be cut down at run time: each subnet uses the leading channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

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


class DynamicBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that uses the leading entries of its parameters and statistics.

    The running statistics are shared by all subnets and so are right for none: `recalibrate`
    an extracted subnet before it is evaluated.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same shape, C being at most `num_features`."""
        channels = input.shape[1]
        assert self.running_mean is not None and self.running_var is not None
        return F.batch_norm(
            input,
            self.running_mean[:channels],
            self.running_var[:channels],
            self.weight[:channels],
            self.bias[:channels],
            self.training,
            self.momentum if self.momentum is not None else 0.1,
            self.eps,
        )


class DynamicLinear(nn.Linear):
    """A linear layer that uses as many of its leading input features as it is given."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, D_in) to (N, out_features), D_in being at most `in_features`."""
        return F.linear(input, self.weight[:, : input.shape[1]], self.bias)
