"""Known networks as backbones: classifiers of torchvision, and those of public weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from devices.files import sha256_of
from edgesearch.errors import CheckpointError, SpaceError
from edgesearch.space.public_weights import IMAGENET, Normalisation, PublicWeights
from edgesearch.supernet.public_weights import read_public_weights
from edgesearch.supernet.weight_files import read_tensors
from edgesearch.supernet.weight_packages import PACKAGES, packaged_file
from edgesearch.tasks.backbone import Backbone
from edgesearch.tasks.timm_backbones import (
    PREFIX,
    check_timm,
    require_known,
    timm_backbone,
    timm_normalisation,
)
from edgesearch.training.randomness import seeded

_STEMS = ("conv1", "bn1", "relu", "maxpool")
_STAGES = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Baseline:
    """A network that a user might have picked anyway.

    Attributes:
        name: In torchvision.models, one of `PACKAGES`, or that of a network of timm after
            `PREFIX`.
        weights: File of its weights; random ones if None.
        in_channels: Channels of the images; with 1, the first convolution has the sum of its
            weights over the colours.
    """

    name: str
    weights: Path | None
    in_channels: int

    @classmethod
    def find(cls, name: str, weights: Path | None, in_channels: int) -> Baseline:
        """A baseline with the given file of weights, or with those of its package if installed.

        Raises:
            SpaceError: There is no network of this name.
            CheckpointError: The network is known by its package only, which is not installed; or
                there is no such file.
        """
        if weights is not None and not weights.is_file():
            raise CheckpointError(
                f"the weights of {name} at {weights}",
                "no such file",
                f"Correct compare.weights.{name}, or leave it out for random weights.",
            )
        if name.startswith(PREFIX):
            check_timm(name.removeprefix(PREFIX))
        elif name not in PACKAGES:
            _require_classifier(name)
        elif weights is None:
            try:
                weights = packaged_file(name)
            except CheckpointError:
                if name not in _classifiers():
                    raise
        return cls(name, weights, in_channels)

    @property
    def origin(self) -> dict[str, str]:
        """What it begins with, for records: name and hash of the file, if there is one."""
        if self.weights is None:
            return {"weights": "random"}
        return {"weights": self.weights.name, "sha256": sha256_of(self.weights)}

    @property
    def normalisation(self) -> Normalisation | None:
        """Mean and deviation of pixels that its weights expect; None for random weights."""
        if self._public is not None:
            return self._public.mean, self._public.std
        if self.name.startswith(PREFIX) and self.weights is not None and self.in_channels == 3:
            return timm_normalisation(self.name.removeprefix(PREFIX))
        return None if self.weights is None else IMAGENET[self.in_channels]

    @cached_property
    def _public(self) -> PublicWeights | None:
        """The network of a family that its weights are of, if it is known as such."""
        if self.weights is None or self.name not in PACKAGES:
            return None
        public = read_public_weights(self.weights)
        return public.in_grey() if self.in_channels == 1 else public

    def backbone(self, resolution: int, dense: bool, seed: int) -> Backbone:
        """Its backbone for images of a resolution.

        Args:
            resolution: Height and width of the images, in pixels.
            dense: Whether maps of stages are read, not the features alone.
            seed: Seed of random weights.

        Raises:
            SpaceError: Its parts are not known here, the file is of another network, or the images
                are too small for it.
            CheckpointError: The file cannot be read.
        """
        try:
            if self.name.startswith(PREFIX):
                name = self.name.removeprefix(PREFIX)
                return timm_backbone(name, resolution, self.in_channels, self.weights, dense, seed)
            if self._public is None:
                return baseline(self.name, resolution, self.in_channels, self.weights, seed)
            return Backbone.of(self._public.network(), resolution, self.in_channels, dense)
        except (AssertionError, RuntimeError) as error:  # no pixels are left, or another size
            raise SpaceError(
                f"images of a size that {self.name} takes",
                f"{resolution} px ({error})",
                "Set compare.resolution=budget, or leave it out of compare.baselines.",
            ) from error


def _classifiers() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models))  # classifiers only


def _require_classifier(name: str) -> None:
    known = [*_classifiers(), *PACKAGES]
    otherwise = "Such as resnet18 or mobilenet_v2."
    require_known("a classifier in torchvision.models", name, known, otherwise)


def baseline(
    name: str, resolution: int, in_channels: int, weights: Path | None = None, seed: int = 0
) -> Backbone:
    """A classifier of torchvision without its last layers.

    Args:
        name: In torchvision.models, such as resnet18 or mobilenet_v3_small.
        resolution: Height and width of the images, in pixels.
        in_channels: Channels of the images; with 1, the first convolution has the sum of its
            weights over the colours.
        weights: File of torchvision's weights; random ones if None.
        seed: Seed of random weights.

    Raises:
        SpaceError: torchvision has no such network, its parts are not known here, or the file is
            of another network.
        CheckpointError: The file cannot be read.
    """
    from torchvision import models

    _require_classifier(name)
    with seeded(seed):
        network = models.get_model(name, weights=None)
    if weights is not None:
        state = read_tensors(weights)
        wanted = network.state_dict()
        missing = [
            key for key in wanted if key not in state or state[key].shape != wanted[key].shape
        ]
        if missing:
            raise SpaceError(
                f"weights of torchvision's {name} in {weights}",
                f"{len(missing)} tensors missing or of another shape; the first: {missing[0]}",
                "Name the file of this network.",
            )
        network.load_state_dict({key: state[key] for key in wanted})
    if in_channels == 1:
        _to_grey(network)
    return Backbone(_parts(name, network), resolution, in_channels)


def _parts(name: str, network: nn.Module) -> dict[str, nn.Module]:
    children = dict(network.named_children())
    if isinstance(children.get("features"), nn.Sequential):  # mobile networks, VGG, ConvNeXt …
        return {f"part{key}": part for key, part in children["features"].named_children()}
    if all(stage in children for stage in _STAGES):  # residual networks
        return {key: children[key] for key in (*_STEMS, *_STAGES)}
    if "trunk_output" in children:  # RegNet
        trunk = children["trunk_output"].named_children()
        return {"stem": children["stem"], **{f"trunk_{key}": part for key, part in trunk}}
    raise SpaceError(
        "a residual, mobile, VGG, ConvNeXt or RegNet network of torchvision",
        name,
        "Choose another network.",
    )


@torch.no_grad()
def _to_grey(network: nn.Module) -> None:
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            grey = nn.Conv2d(
                1,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                module.dilation,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            grey.weight.copy_(module.weight.sum(dim=1, keepdim=True))
            if module.bias is not None and grey.bias is not None:
                grey.bias.copy_(module.bias)
            parent, _, child = path.rpartition(".")
            setattr(network.get_submodule(parent), child, grey)
            return
