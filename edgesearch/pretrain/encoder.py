"""What most methods are made of: an encoder, and a second one that follows it slowly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.space import SearchSpace
from edgesearch.supernet.projector import Projector
from edgesearch.supernet.supernet import Supernet

State = dict[str, torch.Tensor]


class Encoder(nn.Module):
    """A supernet and the projector behind it; maybe a second one, for each place of an image."""

    def __init__(
        self, supernet: Supernet, projector: Projector, dense_projector: Projector | None = None
    ) -> None:
        super().__init__()
        self.supernet = supernet
        self.projector = projector
        self.dense_projector = dense_projector

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to embeddings (N, dim) of the active architecture."""
        embeddings: torch.Tensor = self.projector(self.supernet(images))
        return embeddings

    def resized(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W) at the resolution of the active architecture."""
        resolution = self.supernet.active.resolution
        if images.shape[-1] == resolution:
            return images
        return F.interpolate(images, (resolution, resolution), mode="bilinear", antialias=True)


def new_encoder(
    space: SearchSpace, hidden_dim: int, dim: int, bn: bool, *, dense: bool = False
) -> Encoder:
    """An encoder with weights from torch's random state: of the supernet first, then projectors.

    Args:
        space: The space of the supernet.
        hidden_dim: Width of the projectors' hidden layer.
        dim: Length of an embedding.
        bn: Batch normalisation in the projectors.
        dense: Whether there is a projector for places, too.
    """
    supernet = Supernet(space)
    projector, *others = (
        Projector(supernet.feature_dim, hidden_dim, dim, bn) for _ in range(1 + dense)
    )
    return Encoder(supernet, projector, *others)


@torch.no_grad()
def move_towards(follower: nn.Module, leader: nn.Module, momentum: float) -> None:
    """Move all weights of a module towards those of another of the same kind.

    Args:
        follower: What is moved.
        leader: Where to.
        momentum: Share of itself that the follower keeps.
    """
    weights: list[torch.Tensor] = list(follower.parameters())
    towards: list[torch.Tensor] = list(leader.parameters())
    torch._foreach_lerp_(weights, towards, 1 - momentum)


def states_of(encoder: Encoder) -> tuple[State, State, State | None]:
    """States of backbone, projector and, where there is one, projector for places; on the CPU."""
    dense = encoder.dense_projector
    return (
        _on_cpu(encoder.supernet.backbone),
        _on_cpu(encoder.projector),
        None if dense is None else _on_cpu(dense),
    )


def _on_cpu(module: nn.Module) -> State:
    return {name: tensor.cpu() for name, tensor in module.state_dict().items()}
