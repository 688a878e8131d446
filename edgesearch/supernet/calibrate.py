"""Normalisation statistics for one subnet, taken from images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn


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
    recalibrate_all([network], images, network, batch_size)


@torch.no_grad()
def recalibrate_all(
    networks: Sequence[nn.Module],
    images: torch.Tensor,
    run: Callable[[torch.Tensor], object],
    batch_size: int = 128,
) -> None:
    """Recalibrate networks that are run together; see `recalibrate`.

    Args:
        networks: They may share modules; their modes are left as they were.
        images: (N, C, H, W), normalised.
        run: Runs a batch through all of them, and through each module once.
        batch_size: Images in each forward pass.
    """
    norms = {
        module: module.momentum
        for network in networks
        for module in network.modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    }
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    modes = [network.training for network in networks]
    for network in networks:
        network.train()
    try:
        for batch in images.split(batch_size):
            if 2 * len(batch) >= batch_size or len(batch) == len(images):
                run(batch)
    finally:
        for network, was_training in zip(networks, modes, strict=True):
            network.train(was_training)
        for norm, momentum in norms.items():
            norm.momentum = momentum
