"""The weight-sharing supernet of a search space."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from edgesearch.space import Architecture, SearchSpace
from edgesearch.supernet.dynamic_ops import ELASTIC


class Supernet(nn.Module):
    """The largest network of a space; any architecture can be made its active part.

    An architecture uses the leading channels of each layer and the leading blocks of each stage.

    Source: DATA (CVPR 2022), section 3.1; Once-for-All (ICLR 2020) for the slicing.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        self.backbone = space.make_network(space.blocks(space.largest), ELASTIC)
        self.active = space.largest
        self._compiled: Callable[[torch.Tensor], list[torch.Tensor]] | None = None
        self._compiled_for: frozenset[Architecture] = frozenset()

    @property
    def feature_dim(self) -> int:
        """Length of the largest network's features."""
        return self.backbone.feature_dim

    def activate(self, architecture: Architecture) -> None:
        """Make `forward` run this architecture, which must be in the space."""
        self.space.index(architecture)
        self.backbone.activate(self.space.blocks(architecture))
        self.active = architecture

    def compile_for(self, architectures: Iterable[Architecture], backend: str = "inductor") -> None:
        """Run these architectures by torch.compile from now on, one graph each."""
        self._compiled_for = frozenset(architectures)
        self._compiled = torch.compile(self.backbone.forward_blocks, dynamic=False, backend=backend)

    def forward(self, images: torch.Tensor, *, pooled: bool = True) -> torch.Tensor:
        """(N, C, H, W) to features (N, D) of the active architecture, or its `feature_map`."""
        return self._outputs(images)[-1 if pooled else -2]

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the last stage's output (N, D, H', W') before pooling."""
        found: torch.Tensor = self(images, pooled=False)
        return found

    def _outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        if self._compiled is None or self.active not in self._compiled_for:
            return self.backbone.forward_blocks(images)
        return self._compiled(images)
