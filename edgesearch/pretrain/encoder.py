"""The encoders of self-supervised methods."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.space import SearchSpace
from edgesearch.supernet.projector import Projector
from edgesearch.supernet.supernet import Supernet

State = dict[str, torch.Tensor]


class Encoder(nn.Module):
    """A supernet with projector, and optionally a dense projector for positions of feature maps.

    Initial weights come from torch's random state: supernet first, then projectors.
    """

    def __init__(
        self, space: SearchSpace, hidden_dim: int | None, dim: int, bn: bool, *, dense: bool = False
    ) -> None:
        super().__init__()
        self.supernet = Supernet(space)
        heads = self.supernet.feature_dim, hidden_dim, dim, bn
        self.projector = Projector(*heads)
        self.dense_projector = Projector(*heads) if dense else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to embeddings (N, dim) of the active architecture."""
        return self.projector(self.supernet(images))

    def encoded(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The last map (N, C, H, W) and embeddings (N, dim) of images of any resolution."""
        feature_map = self.supernet.feature_map(self.resized(images))
        return feature_map, self.projector(feature_map.mean(dim=(2, 3)))

    def resized(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W) resized to the resolution of the active architecture."""
        resolution = self.supernet.active.resolution
        if images.shape[-1] == resolution:
            return images
        return F.interpolate(images, (resolution, resolution), mode="bilinear", antialias=True)


@torch.no_grad()
def move_towards(follower: nn.Module, leader: nn.Module, momentum: float) -> None:
    """Move weights towards those of a leader by 1 - momentum (exponential moving average)."""
    weights: list[torch.Tensor] = list(follower.parameters())
    towards: list[torch.Tensor] = list(leader.parameters())
    torch._foreach_lerp_(weights, towards, 1 - momentum)


def states_of(encoder: Encoder) -> tuple[State, State, State | None]:
    """States of backbone, projector and dense projector (if any) on the CPU."""
    dense = encoder.dense_projector
    return (
        _on_cpu(encoder.supernet.backbone),
        _on_cpu(encoder.projector),
        None if dense is None else _on_cpu(dense),
    )


def _on_cpu(module: nn.Module) -> State:
    return {name: tensor.cpu() for name, tensor in module.state_dict().items()}
