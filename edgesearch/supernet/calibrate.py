"""Recalibration of batch normalisation for one subnet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakSet

import torch
from torch import nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_KEPT: WeakSet[nn.Module] = WeakSet()
"""Normalisations whose statistics are never replaced."""


def keep_statistics(network: nn.Module) -> None:
    """Exempt the normalisations of a network from recalibration."""
    _KEPT.update(module for module in network.modules() if isinstance(module, _NORMS))


def recalibrate(network: nn.Module, images: torch.Tensor, batch_size: int = 128) -> None:
    """Replace the statistics of batch normalisations by those of the given images.

    Those of `keep_statistics` stay as they are.

    The shared statistics fit no subnet; without recalibration accuracy collapses (Yu and Huang,
    "Universally slimmable networks", ICCV 2019, section 3.2). The new statistics are the mean over
    batches. To get the same network, search, evaluation and export must pass the same images in the
    same order and batches.

    Args:
        network: A network with its own weights; its training mode is kept.
        images: (N, C, H, W), normalised.
        batch_size: Images per forward pass; a last batch below half of it is dropped unless it is
            the only one.
    """
    recalibrate_all([network], images, network, batch_size)


@torch.no_grad()
def recalibrate_all(
    networks: Sequence[nn.Module],
    images: torch.Tensor,
    run: Callable[[torch.Tensor], object],
    batch_size: int = 128,
) -> None:
    """Recalibrate networks, which may share modules, together; see `recalibrate`.

    `run` passes a batch through all networks, and through each module once.
    """
    norms = {
        module: module.momentum
        for network in networks
        for module in network.modules()
        if isinstance(module, _NORMS) and module not in _KEPT
    }
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    modes = [network.training for network in networks]
    for network in networks:
        network.train()
        for module in network.modules():
            if module in _KEPT:
                module.eval()
    try:
        for batch in images.split(batch_size):
            if 2 * len(batch) >= batch_size or len(batch) == len(images):
                run(batch)
    finally:
        for network, was_training in zip(networks, modes, strict=True):
            network.train(was_training)
        for norm, momentum in norms.items():
            norm.momentum = momentum
