"""Features of many images."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def compute_features(
    network: nn.Module, images: torch.Tensor, batch_size: int = 256
) -> torch.Tensor:
    """Run a network in evaluation mode over all images; its mode is left as it was.

    Args:
        network: Maps (N, C, H, W) to (N, D).
        images: (N, C, H, W), normalised.
        batch_size: Images in each forward pass.

    Returns:
        (N, D).
    """
    was_training = network.training
    network.eval()
    features = torch.cat([network(batch) for batch in images.split(batch_size)])
    network.train(was_training)
    return features
