"""A subnet as a module of its own, for use outside of this package."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgesearch.supernet.resnet import ResNet

OUTPUTS = ("features", "logits", "embeddings", "stages")


class Subnet(nn.Module):
    """A residual network with one kind of output.

    Names and order of its parts are those of torchvision's ResNet (conv1, bn1, relu, maxpool,
    layer1 …, fc), so that torchvision's helpers can take features out of it by these names. A small
    stem has no pooling: its `maxpool` does nothing. The projector, which torchvision does not know,
    is called `projector`.

    Args:
        network: Gives stem and stages, which are shared with it, not copied.
        output: "features" (N, D); "logits" (N, classes), which need `fc`; "embeddings" (N, E) of
            length 1, which need `projector`; or "stages", the maps (N, C, H, W) of all stages.
        fc: A linear classifier on the features.
        projector: What makes embeddings of features.

    Attributes:
        stage_names: Names of the stages, such as ["layer1", "layer2"].
        stage_channels: Channels of their outputs.
        feature_dim: D.
        about: What is known of a loaded subnet: space, architecture, preprocess, classes.
    """

    def __init__(
        self,
        network: ResNet,
        output: str = "features",
        fc: nn.Module | None = None,
        projector: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = network.conv1
        self.bn1 = network.bn1
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if network.max_pool else nn.Identity()
        self.stage_names = list(network.stage_names)
        self.stage_channels = []
        for name in self.stage_names:
            blocks = list(network.get_submodule(name).children())
            self.add_module(name, nn.Sequential(*blocks))
            convolutions = [m for m in blocks[0].modules() if isinstance(m, nn.Conv2d)]
            self.stage_channels.append(convolutions[-1].out_channels)
        self.feature_dim = network.feature_dim
        if fc is not None:
            self.fc = fc
        if projector is not None:
            self.projector = projector
        self.output = output
        self.about: dict[str, Any] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """(N, C, H, W) to what `output` says."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        stages = []
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
            stages.append(x)
        if self.output == "stages":
            return stages
        features: torch.Tensor = x.mean(dim=(2, 3))
        if self.output == "logits":
            logits: torch.Tensor = self.fc(features)
            return logits
        if self.output == "embeddings":
            embeddings: torch.Tensor = self.projector(features)
            return embeddings
        return features
