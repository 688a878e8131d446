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
    """Features (N, D) of images (N, C, H, W), in evaluation mode; the training mode is restored.

    `prepare` preprocesses a batch; None if the images are normalised.
    """
    was_training = network.training
    network.eval()
    batches = map(prepare, images.split(batch_size)) if prepare else images.split(batch_size)
    features = torch.cat([network(batch) for batch in batches])
    network.train(was_training)
    return features
