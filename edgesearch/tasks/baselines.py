"""Networks of torchvision as backbones."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch
from torch import nn

from edgesearch.errors import SpaceError
from edgesearch.supernet.weight_files import read_tensors
from edgesearch.tasks.backbone import Backbone

_STEMS = ("conv1", "bn1", "relu", "maxpool")
_STAGES = ("layer1", "layer2", "layer3", "layer4")


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

    known = models.list_models(module=models)  # classifiers only
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        raise SpaceError(
            "the name of a classifier in torchvision.models",
            repr(name),
            f"Did you mean {' or '.join(near)}?" if near else "Such as resnet18 or mobilenet_v2.",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
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
                bias=module.bias is not None,
            )
            grey.weight.copy_(module.weight.sum(dim=1, keepdim=True))
            if module.bias is not None and grey.bias is not None:
                grey.bias.copy_(module.bias)
            parent, _, child = path.rpartition(".")
            setattr(network.get_submodule(parent), child, grey)
            return
