"""Normalisation statistics for one subnet, taken from images."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def recalibrate(network: nn.Module, images: torch.Tensor, batch_size: int = 128) -> None:
    """Replace the statistics of all batch normalisations by those of the given images.

    Shared statistics are right for no subnet; without this step accuracy collapses (Yu and Huang,
    "Universally slimmable networks", ICCV 2019, section 3.2). The statistics are the plain mean
    over batches. Search, evaluation and export have to pass the same images in the same order and
    batches to get the same network.

    Args:
        network: A network with weights of its own; its mode is left as it was.
        images: (N, C, H, W), normalised.
        batch_size: Images in each forward pass; a last batch smaller than half of it is left out
            unless it is the only one.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    was_training = network.training
    network.train()
    try:
        for batch in images.split(batch_size):
            if 2 * len(batch) >= batch_size or len(batch) == len(images):
                network(batch)
    finally:
        network.train(was_training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
