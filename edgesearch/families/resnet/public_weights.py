"""Files of public weights of residual networks.

Our modules carry torchvision's names, as do nearly all checkpoints of residual networks; kinds
differ in the prefix of their keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from edgesearch.errors import CheckpointError
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.space.public_weights import IMAGENET, PublicWeights


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint: its name, and a pattern of the prefix before `conv1.weight`."""

    name: str
    prefix: str


KINDS = (
    Kind("GAIA-ssl or DenseCL (query encoder)", r"(.*\.)?encoder_q\.0\."),
    Kind("MoCo (query encoder)", r"(.*\.)?(encoder_q|base_encoder)\."),
    Kind("DINO (teacher)", r"teacher\.(module\.)?(backbone\.)?"),
    Kind("lightly, MMSelfSup or another library (backbone)", r"(.*\.)?backbone\."),
    Kind("torchvision's form (torchvision, timm, DINO)", r"(state_dict\.|model\.)?(module\.)?"),
)
"""The kinds, those of a file with several networks first."""
KNOWN = "residual networks in torchvision's form (torchvision, timm, MoCo, DINO, DenseCL, lightly)"
"""The known networks, for messages."""

_NUMBERED = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Names of a torchvision ResNet's modules in an `nn.Sequential` of its children (lightly)."""
_FIRST = re.compile(r"(?P<prefix>(?:.*\.)?)(?:layer1|4)\.0\.conv1\.weight")
_NOT_OURS = re.compile(r"(fc|head|classifier|last_linear)\..*|.*\.num_batches_tracked")


def read_resnet(entries: Mapping[str, torch.Tensor]) -> PublicWeights | None:
    """The residual network of a checkpoint's tensors; None if there is none.

    Raises:
        CheckpointError: It is a residual network, but of a form that the family has not.
    """
    prefixes = {found["prefix"] for found in map(_FIRST.fullmatch, entries) if found}
    for kind in KINDS:
        for prefix in sorted(prefixes):
            if re.fullmatch(kind.prefix, prefix):
                own = {
                    name.removeprefix(prefix): tensor
                    for name, tensor in entries.items()
                    if name.startswith(prefix)
                }
                return _of_torchvision_names(kind.name, own)
    return None


def _of_torchvision_names(kind: str, state: Mapping[str, torch.Tensor]) -> PublicWeights:
    if "4.0.conv1.weight" in state:
        parts = [(name, *name.split(".", 1)) for name in state if "." in name]
        state = {
            f"{_NUMBERED[first]}.{rest}": state[name]
            for name, first, rest in parts
            if first in _NUMBERED
        }
    state = {name: value.float() for name, value in state.items() if not _NOT_OURS.fullmatch(name)}
    space = _space_of(state)
    # Normalisations count their batches; public files of old versions lack these counters.
    network = space.make_network(space.blocks(space.largest))
    own = network.state_dict()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in state:
            raise _other_form(f"no {name}")
        if tensor.shape != state[name].shape:
            raise _other_form(f"{name} of {_shape(state[name])}, not {_shape(tensor)}")
        own[name] = state[name]
    unknown = sorted(set(state) - set(own))
    if unknown:
        raise _other_form(f"{unknown[0]}, which our residual networks lack")
    return PublicWeights(kind, space, own, *IMAGENET[space.in_channels])


def _space_of(state: Mapping[str, torch.Tensor]) -> ResNetSpace:
    """The space that holds only the network of these tensors."""
    if "conv1.weight" not in state:
        stem = sorted(name for name in state if not name.startswith(("layer", "bn")))
        raise _other_form(f"a stem of {', '.join(stem[:3]) or 'nothing'}, not of conv1.weight")
    conv1 = state["conv1.weight"]
    kernel = conv1.shape[-1]
    if kernel not in (3, 7):
        raise _other_form(f"conv1.weight of {_shape(conv1)}: a kernel of {kernel}, not 7 or 3")
    stages: dict[int, set[int]] = {}
    for name in state:
        found = re.match(r"layer(\d+)\.(\d+)\.", name)
        if found:
            stages.setdefault(int(found[1]), set()).add(int(found[2]))
    bottleneck = "layer1.0.conv3.weight" in state
    projects = bottleneck or "layer1.0.downsample.0.weight" in state
    widths = [state[f"layer{number}.0.conv1.weight"].shape[0] for number in sorted(stages)]
    return ResNetSpace(
        name="public",
        block="bottleneck" if bottleneck else "basic",
        stem="imagenet" if kernel == 7 else "small",
        stem_widths=(conv1.shape[0],),
        stage_widths=tuple((width,) for width in widths),
        stage_depths=tuple((len(stages[number]),) for number in sorted(stages)),
        resolutions=(224,),
        stem_stride=2 if kernel == 7 else 1,
        in_channels=conv1.shape[1],
        stage1_shortcut=None if projects else "identity",
    )


def _shape(tensor: torch.Tensor) -> str:
    return " × ".join(map(str, tensor.shape))


def _other_form(found: str) -> CheckpointError:
    return CheckpointError(
        "weights of a residual network in torchvision's form (stem of one convolution, stride in "
        "the 3×3 convolution, 1×1 projections)",
        found,
        "Choose weights of such a network.",
    )
