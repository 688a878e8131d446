"""Features of many images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


@torch.no_grad()
def compute_features(
    network: nn.Module,
    images: torch.Tensor,
    batch_size: int = 256,
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Run a network in evaluation mode over all images; its training mode is restored.

    Args:
        network: Maps (N, C, H, W) to (N, D).
        images: (N, C, H, W), inputs of `prepare`.
        batch_size: Images per forward pass.
        prepare: Preprocesses a batch; None if the images are normalised.

    Returns:
        (N, D).
    """
    was_training = network.training
    network.eval()
    batches = map(prepare, images.split(batch_size)) if prepare else images.split(batch_size)
    features = torch.cat([network(batch) for batch in batches])
    network.train(was_training)
    return features
