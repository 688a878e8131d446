"""Networks of timm as backbones; timm is an optional package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from devices.values import did_you_mean
from edgesearch.errors import SpaceError
from edgesearch.space.public_weights import IMAGENET, Normalisation
from edgesearch.supernet.weight_files import read_tensors
from edgesearch.tasks.backbone import Backbone
from edgesearch.training.randomness import seeded

PREFIX = "timm/"
"""In names of baselines."""


def check_timm(name: str) -> None:
    """Check that timm is installed and has a network.

    Raises:
        SpaceError: It is not, or has not.
    """
    known = _timm().list_models()
    require_known("a network of timm", name, known, "timm.list_models() lists the names.")


def require_known(what: str, name: str, known: Sequence[str], otherwise: str) -> None:
    """Refuse a name that is not among those known.

    Args:
        what: What it is the name of.
        name: The name.
        known: The names.
        otherwise: What to do if none is similar.

    Raises:
        SpaceError: It is not among them.
    """
    if name not in known:
        remedy = did_you_mean(name, known, otherwise, most=3)
        raise SpaceError(f"the name of {what}", repr(name), remedy)


def timm_normalisation(name: str) -> Normalisation:
    """Mean and deviation of pixels that the published weights of a network expect."""
    config = _timm().get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        return IMAGENET[3]
    return tuple(config.mean), tuple(config.std)


def timm_backbone(
    name: str, resolution: int, in_channels: int, weights: Path | None, dense: bool, seed: int
) -> Backbone:
    """A network of timm without its classifier.

    Args:
        name: In timm.
        resolution: Height and width of the images, in pixels.
        in_channels: Channels of the images; with 1, timm sums the weights of the first convolution.
        weights: File of timm's weights; random ones if None.
        dense: Whether maps of several sizes are read, not the features alone.
        seed: Seed of random weights.

    Raises:
        SpaceError: The network does not take such images or gives no maps, or the file is of
            another network.
        CheckpointError: The file cannot be read.
    """
    with seeded(seed):
        try:
            form: dict[str, Any] = {"features_only": True} if dense else {"num_classes": 0}
            network = _timm().create_model(name, pretrained=False, in_chans=in_channels, **form)
        except (RuntimeError, AttributeError, AssertionError) as error:
            raise SpaceError(
                f"a network of timm with {'maps of several sizes' if dense else 'features'}",
                f"{name} ({error})",
                "Choose another network.",
            ) from error
    if weights is not None:
        _load(network, read_tensors(weights), name, weights)
    return _AtOnce(network if dense else _AsMap(network), resolution, in_channels)


def _load(network: nn.Module, state: dict[str, torch.Tensor], name: str, path: Path) -> None:
    """Give a network its weights; a colour image's first convolution is summed for grey ones."""
    wanted = network.state_dict()
    found = {}
    for key, tensor in wanted.items():
        given = state.get(key)
        if given is not None and given.ndim == 4 and given.shape[1] == 3 and tensor.shape[1] == 1:
            given = given.sum(dim=1, keepdim=True)
        if given is None or given.shape != tensor.shape:
            raise SpaceError(
                f"weights of timm's {name} in {path}",
                f"{key} missing or of another shape",
                "Name the file of this network.",
            )
        found[key] = given
    network.load_state_dict(found)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise SpaceError(
            "the package timm for a baseline of timm", "it is missing", "pip install timm"
        ) from error
    return timm


class _AsMap(nn.Module):
    """Features (N, D) as a map (N, D, 1, 1)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.network(images)[:, :, None, None]]


class _AtOnce(Backbone):
    """A network that gives a list of all its maps at once."""

    def __init__(self, network: nn.Module, resolution: int, in_channels: int) -> None:
        super().__init__({"network": network}, resolution, in_channels)

    def _all(self, images: torch.Tensor) -> list[torch.Tensor]:
        (found,) = super()._all(images)
        return [*found]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """See `Backbone`."""
        maps = self.get_submodule("network")(images)
        return [maps[number] for number in self._kept]
