"""Files of public weights of mobile networks.

A kind says in which order the convolutions and normalisations of a checkpoint run; the names of our
modules replace theirs in this order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from edgesearch.errors import CheckpointError
from edgesearch.families.mobile.members import MEMBERS
from edgesearch.space.public_weights import IMAGENET, Normalisation, PublicWeights

Order = Callable[[str], tuple[int, ...] | None]
"""The place of a module (without `weight` …) in the network; None for what is not the backbone."""


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint.

    Attributes:
        name: Where files of this form come from.
        first: Name of the first convolution.
        order: See `Order`.
        members: Names of the networks of this form.
        normalisation: Mean and deviation of pixels that the weights expect.
    """

    name: str
    first: str
    order: Order
    members: tuple[str, ...]
    normalisation: Normalisation


def _lite_order(module: str) -> tuple[int, ...] | None:
    ends = {"_conv_stem": (-1, 0), "_bn0": (-1, 1), "_conv_head": (999, 0), "_bn1": (999, 1)}
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
    if found is None:
        return ends.get(module)
    inner = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
    return (int(found[1]), inner.index(found[2])) if found[2] in inner else None


def _torchvision_order(module: str) -> tuple[int, ...] | None:
    if not re.fullmatch(r"features\.[\d.conv]+", module):
        return None
    return tuple(int(part) for part in module.split(".")[1:] if part != "conv")


def _timm_order(module: str) -> tuple[int, ...] | None:
    if module in ("conv_stem", "bn1"):
        return (-1, 0, 0, module == "bn1")
    found = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(?:(\w+)\.)?(conv|bn1?)", module)
    parts = (None, "dw_start", "pw_exp", "dw_mid", "pw_proj")
    if found is None or found[3] not in parts:
        return None
    return (int(found[1]), int(found[2]), parts.index(found[3]), found[4] != "conv")


KINDS = (
    Kind(
        "EfficientNet-Lite (efficientnet-lite-pytorch)",
        "_conv_stem",
        _lite_order,
        ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"),
        ((127 / 255,) * 3, (128 / 255,) * 3),
    ),
    Kind(
        "MobileNetV2 of torchvision",
        "features.0.0",
        _torchvision_order,
        ("mobilenet_v2",),
        IMAGENET[3],
    ),
    Kind(
        "MobileNetV4-Conv-Small of timm",
        "conv_stem",
        _timm_order,
        ("mobilenet_v4_conv_small",),
        IMAGENET[3],
    ),
)

KNOWN = ", ".join(f"{kind.name}" for kind in KINDS)
"""The known networks, for messages."""


def read_mobile(entries: Mapping[str, torch.Tensor]) -> PublicWeights | None:
    """The mobile network of a checkpoint's tensors; None if there is none.

    Raises:
        CheckpointError: It has the names of a kind, but is none of its networks.
    """
    for kind in KINDS:
        for prefix in ("", "module.", "state_dict.", "model.", "state_dict.module."):
            if f"{prefix}{kind.first}.weight" in entries:
                own = {
                    name.removeprefix(prefix): tensor
                    for name, tensor in entries.items()
                    if name.startswith(prefix)
                }
                ordered = _in_order(kind, own)
                # `conv_stem` and `features.0.0` are names of other families' networks, too.
                if len(ordered) > 2:
                    return _of_kind(kind, own, ordered)
    return None


def _in_order(kind: Kind, state: Mapping[str, torch.Tensor]) -> list[str]:
    """The modules of the backbone in the order in which they run."""
    modules = dict.fromkeys(name.rpartition(".")[0] for name in state)
    places = {module: kind.order(module) for module in modules}
    return sorted((m for m in modules if places[m] is not None), key=lambda m: places[m] or ())


def _of_kind(kind: Kind, state: Mapping[str, torch.Tensor], ordered: list[str]) -> PublicWeights:
    differences = []
    for name in kind.members:
        space = MEMBERS[name]
        network = space.make_network(space.blocks(space.largest))
        own = network.state_dict()
        modules = list(dict.fromkeys(key.rpartition(".")[0] for key in own))
        theirs = dict(zip(modules, ordered, strict=False))
        for place, (key, tensor) in enumerate(own.items()):
            module, _, part = key.rpartition(".")
            if part == "num_batches_tracked":
                continue
            source = f"{theirs[module]}.{part}" if module in theirs else "a layer behind the last"
            if source not in state or state[source].shape != tensor.shape:
                found = tuple(state[source].shape) if source in state else "missing"
                text = f"{source} {found}, not {tuple(tensor.shape)} as in {name}"
                differences.append((place, text))
                break
            own[key] = state[source].float()
        else:
            if len(ordered) == len(modules):
                return PublicWeights(kind.name, space, own, *kind.normalisation)
            differences.append((len(own), f"{ordered[len(modules)]}, which {name} lacks"))
    raise CheckpointError(
        f"weights of {' or '.join(kind.members)}",
        max(differences)[1],  # of the network that agrees with it furthest
        "Choose weights of such a network.",
    )
