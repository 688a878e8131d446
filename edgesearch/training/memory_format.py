"""The order of the axes in memory in which a network of fixed layers is trained."""

from __future__ import annotations

import torch
from torch import nn

from edgesearch.supernet.dynamic_ops import ONEDNN_CHANNEL_BLOCK


def training_format(network: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last on a processor, where it is faster, unless the gradients would be wrong.

    It depends on the layers alone, not on timed steps: a resumed training computes as it began.
    """
    if device.type == "cpu" and not any(map(_is_narrow, network.modules())):
        return torch.channels_last
    return torch.contiguous_format


def _is_narrow(module: nn.Module) -> bool:
    """Whether oneDNN's gradient of a convolution is wrong in channels last."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels < ONEDNN_CHANNEL_BLOCK
    )
