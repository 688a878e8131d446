"""A subnet as a network of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from edgesearch.space import Architecture, SearchSpace
from edgesearch.space.network import Network


def extract(
    space: SearchSpace, weights: Mapping[str, torch.Tensor], architecture: Architecture
) -> Network:
    """Copy an architecture out of the weights of a supernet's backbone.

    Its normalisation statistics are the shared ones: `recalibrate` it before use.

    Args:
        space: The supernet's space.
        weights: State of the supernet's `backbone`.
        architecture: What to copy.

    Returns:
        A plain network in evaluation mode, with weights of its own.

    Raises:
        SpaceError: The architecture is not of this space.
    """
    space.index(architecture)
    with torch.device("meta"):  # no initial values, which would be overwritten
        network = space.make_network(space.blocks(architecture))
    network.to_empty(device="cpu")
    copy_leading(weights, network)
    return network.eval()


def copy_leading(weights: Mapping[str, torch.Tensor], target: nn.Module) -> None:
    """Fill a module with the leading entries of larger tensors of the same names."""
    with torch.no_grad():
        for name, tensor in target.state_dict().items():
            leading = tuple(slice(0, length) for length in tensor.shape)
            tensor.copy_(weights[name][leading])
