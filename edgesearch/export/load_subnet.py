"""Loads the weights of a winner as a PyTorch module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgesearch.errors import ExportError, SpaceError
from edgesearch.export.engines import WEIGHTS_FILE
from edgesearch.export.manifest import check_listed
from edgesearch.families import space_from_dict
from edgesearch.supernet.projector import Projector
from edgesearch.supernet.subnet import Subnet

_REMEDY = "Name a subnet.safetensors that `edgesearch export` wrote, or its folder."


def load_subnet(path: str | Path, output: str | None = None) -> Subnet:
    """Read a winner's weights as a PyTorch module.

    Residual networks use torchvision's module names, so they serve as its detection and
    segmentation backbones: `BackboneWithFPN(subnet, {"layer3": "0", "layer4": "1"},
    subnet.stage_channels[2:], 256)`. Only safetensors are read, so no code of the file is run.

    Args:
        path: A winner's `subnet.safetensors`, or its folder. A manifest beside it must match the
            file.
        output: "features" (N, D), "stages" (a list of maps), or if exported "logits" or
            "embeddings"; the exported output if None.

    Returns:
        The module in evaluation mode, all parameters trainable. Its `about` has space,
            architecture, preprocess and classes.

    Raises:
        ExportError: The file is missing, damaged, foreign or changed, or lacks the head.
    """
    path = Path(path)
    path = path / WEIGHTS_FILE if path.is_dir() else path
    check_listed(path)
    tensors, metadata = _read(path)
    try:
        about = _about(metadata)
        space = space_from_dict(about["space"])
        architecture = space.from_choices(about["architecture"])
        with torch.random.fork_rng(devices=[]):
            network = space.make_network(space.blocks(architecture))
            fc, projector = _head(tensors)
        subnet = Subnet(network, fc=fc, projector=projector)
        subnet.load_state_dict(tensors)
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, SpaceError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ExportError(
            f"the weights of one subnet in {path}", f"{type(error).__name__}: {reason}", _REMEDY
        ) from error
    subnet.output = _output(path, subnet, output or about["output"])
    subnet.about = about
    return subnet.eval()


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
            return tensors, json.loads((file.metadata() or {}).get("edgesearch", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise ExportError(
            f"weights in safetensors format in {path}", str(error) or type(error).__name__, _REMEDY
        ) from error


def _about(metadata: Mapping[str, Any]) -> dict[str, Any]:
    about = {name: json.loads(metadata[name]) for name in ("architecture", "preprocess", "classes")}
    space = json.loads(metadata["space_definition"])
    return {**about, "space": space, "output": metadata["output"]}


def _head(tensors: Mapping[str, torch.Tensor]) -> tuple[nn.Module | None, nn.Module | None]:
    """Classifier and projector, where their weights exist."""
    fc, projector = None, None
    if "fc.weight" in tensors:
        classes, feature_dim = tensors["fc.weight"].shape
        fc = nn.Linear(feature_dim, classes)
    if "projector.fc1.weight" in tensors:
        hidden_dim, feature_dim = tensors["projector.fc1.weight"].shape
        out_dim = tensors["projector.fc2.weight"].shape[0]
        bn = "projector.bn1.weight" in tensors
        projector = Projector(feature_dim, hidden_dim, out_dim, bn)
    return fc, projector


def _output(path: Path, subnet: Subnet, output: str) -> str:
    parts = dict(subnet.named_children())
    offered = ["features", "stages"]
    offered += ["logits"] if "fc" in parts else []
    offered += ["embeddings"] if "projector" in parts else []
    if output not in offered:
        raise ExportError(
            f"an output that {path} has: {', '.join(offered)}",
            repr(output),
            "Choose one of these, or export again with export.output=NAME.",
        )
    return output
