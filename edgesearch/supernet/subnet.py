"""A subnet as a standalone module for use outside this package."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgesearch.space.network import Network

OUTPUTS = ("features", "logits", "embeddings", "stages")


class Subnet(nn.Module):
    """A static network with one kind of output.

    Its modules have the names of the family (residual networks: torchvision's conv1, bn1, relu,
    maxpool, layer1 …), so torchvision's feature extraction works on it. Classifier and projector
    are called `fc` and `projector`.

    Args:
        network: Its modules are shared, not copied.
        output: "features" (N, D); "logits" (N, classes), which need `fc`; "embeddings" (N, E) of
            length 1, which need `projector`; or "stages", the feature maps (N, C, H, W) of all.
        fc: A linear classifier on the features.
        projector: Maps features to embeddings.

    Attributes:
        about: Metadata of a loaded subnet: space, architecture, preprocess, classes.
    """

    def __init__(
        self,
        network: Network,
        output: str = "features",
        fc: nn.Module | None = None,
        projector: nn.Module | None = None,
    ) -> None:
        super().__init__()
        parts = network.in_turn()
        for name, module in parts.items():
            self.add_module(name, module)
        self._parts = list(parts)
        self.stage_names = list(network.stage_channels)
        self.stage_channels = list(network.stage_channels.values())
        self.feature_dim = network.feature_dim
        if fc is not None:
            self.fc = fc
        if projector is not None:
            self.projector = projector
        self.output = output
        self.about: dict[str, Any] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """(N, C, H, W) to the chosen output."""
        x, stages = images, []
        for name in self._parts:
            x = self.get_submodule(name)(x)
            if name in self.stage_names:
                stages.append(x)
        if self.output == "stages":
            return stages
        features: torch.Tensor = x.mean(dim=(2, 3))
        if self.output == "logits":
            return self.fc(features)
        if self.output == "embeddings":
            return self.projector(features)
        return features
