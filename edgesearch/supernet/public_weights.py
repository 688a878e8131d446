"""Public weights as the beginning of a supernet.

Files are recognised by their keys. The trained network is copied into the largest network of a
space such that it computes the same function (Net2Net, Chen et al., ICLR 2016, in a form for
elastic widths, depths and kernels): what is added is not read by what was there.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgesearch.errors import CheckpointError, SpaceError
from edgesearch.families.load_space import FAMILIES
from edgesearch.space import Architecture, SearchSpace
from edgesearch.space.network import Network
from edgesearch.space.public_weights import Normalisation, PublicWeights
from edgesearch.supernet.weight_files import read_tensors
from edgesearch.supernet.weights import metadata_of, read_origin

ADDED_SCALE = 0.01
"""Scale of added channels in what blocks pass on: small beside the source's features, not dead."""


def read_public_weights(path: Path) -> PublicWeights:
    """The trained network of a file of public weights (`.pth`, `.safetensors`).

    Raises:
        CheckpointError: The file cannot be read, would run code, or holds no network of a family.
    """
    entries, known = read_tensors(path), []
    for family in FAMILIES.values():
        if family.reads_public_weights is None:
            continue
        name, _, function = family.reads_public_weights.partition(":")
        module = importlib.import_module(name)
        found = getattr(module, function)(entries)
        if found is not None:
            return found
        known.append(module.KNOWN)
    shown = ", ".join([*list(entries)[:3], "…"][: len(entries)])
    raise CheckpointError(
        f"weights of a network that edgesearch knows in {path}",
        f"{len(entries)} tensors of another one: {shown}" if entries else "no tensors",
        f"Known are {'; '.join(known)}.",
    )


def normalisation_of(path: Path, grey: bool = False) -> Normalisation | None:
    """Mean and deviation of each input channel that weights expect, in grey if asked for.

    Returns:
        None if the file is missing, or a supernet that did not begin with public weights.

    Raises:
        CheckpointError: The file holds no known network.
    """
    if not path.is_file():
        return None
    if metadata_of(path):
        origin = read_origin(path)
        return None if origin is None else (origin.mean, origin.std)
    public = read_public_weights(path)
    public = public.in_grey() if grey else public
    return public.mean, public.std


def member(source: SearchSpace, space: SearchSpace) -> Architecture:
    """The smallest architecture of a space that holds the only one of another space.

    Its resolution is the highest of the space.

    Raises:
        SpaceError: There is none; names each field or choice that differs.
    """
    if faults := misfits(source, space):
        channels = source.form["in_channels"], space.form["in_channels"]
        remedy = (
            "Choose another space or other weights (`edgesearch weights FILE` lists the spaces)."
        )
        if channels == (3, 1) and source.family == space.family and len(faults) == 1:
            remedy = "For grey images, pretrain.init_grey=true sums the first convolution over RGB."
        raise SpaceError(
            f"a space that holds the network {source.largest}",
            f"{space.name!r} has {'; '.join(faults)}",
            remedy,
        )
    wanted = {**source.largest, "resolution": space.resolutions[-1]}
    chosen = {name: min(v for v in space.choices[name] if v >= wanted[name]) for name in wanted}
    return space.from_choices(chosen)


def misfits(source: SearchSpace, space: SearchSpace) -> list[str]:
    """Fields and choices of a space because of which it does not hold another's only network."""
    if source.family != space.family:
        return [f"the family {space.family}, not {source.family}"]
    faults = [
        f"{name} {_plain(space.form[name])}, not {_plain(value)}"
        for name, value in source.form.items()
        if space.form[name] != value
    ]
    if faults:  # the choices of another form of network say nothing
        return faults
    for name in dict.fromkeys([*source.choices, *space.choices]):
        if name not in space.choices or name not in source.choices:
            lacks = "no" if name in source.choices else "also"
            faults.append(f"{lacks} {space.written(name)}")
        elif name != "resolution" and space.choices[name][-1] < source.largest[name]:
            highest = space.choices[name][-1]
            faults.append(f"{space.written(name)} up to {highest}, not {source.largest[name]}")
    return faults


def _plain(value: Any) -> Any:
    """A value as it stands in YAML, in full."""
    return list(value) if isinstance(value, tuple) else value


@torch.no_grad()
def embed(source: PublicWeights, space: SearchSpace, largest: Network) -> Architecture:
    """Copy a trained network into the largest network of a space, which has initial weights.

    The leading features of the largest network, and of the returned member, are those of the
    source. Inner channels are sorted by importance first, so that narrow subnets keep the most
    important ones.

    Returns:
        The smallest architecture that holds the source.

    Raises:
        SpaceError: The space does not hold the source.
    """
    place = member(source.space, space)
    network = source.network()
    sort_inner_channels(network)
    state, target = network.state_dict(), largest.state_dict()
    inner = {name for channels in largest.inner_channels() for name in channels.made_by}
    for name, tensor in target.items():
        module, kind = name.rpartition(".")[::2]
        if name not in state and tensor.ndim == 4 and tensor.shape[1] == 1:
            nn.init.dirac_(tensor, groups=len(tensor))  # an added depthwise convolution
        if name in state:
            _copy_into(state[name], tensor)
            if kind == "weight" and tensor.ndim == 1 and module not in inner:
                tensor[len(state[name]) :].mul_(ADDED_SCALE)
    for block, norm in largest.last_norms().items():
        if not any(name.startswith(f"{block}.") for name in state):
            target[f"{norm}.weight"].zero_()
            target[f"{norm}.bias"].zero_()
    return place


def _copy_into(values: torch.Tensor, tensor: torch.Tensor) -> None:
    """Copy into the leading channels and the centre of the kernel; old outputs read nothing new."""
    if tensor.ndim == 4:
        outputs, inputs, height, width = values.shape
        tensor[:outputs] = 0
        top, left = (tensor.shape[2] - height) // 2, (tensor.shape[3] - width) // 2
        tensor[:outputs, :inputs, top : top + height, left : left + width] = values
    elif tensor.ndim == 1:
        tensor[: len(values)] = values
    else:
        tensor.copy_(values)


@torch.no_grad()
def sort_inner_channels(network: Network) -> None:
    """Sort the inner channels of each block by the L1 norm of the weights that read them.

    The network computes the same function.

    Source: Cai et al., "Once-for-All" (ICLR 2020), section 3.3 (channel importance).
    """
    for channels in network.inner_channels():
        reader: Any = network.get_submodule(channels.read_by)
        order = reader.weight.abs().sum(dim=(0, 2, 3)).argsort(descending=True, stable=True)
        reader.weight.copy_(reader.weight[:, order])
        for name in channels.made_by:
            for tensor in network.get_submodule(name).state_dict().values():
                if tensor.ndim:
                    tensor.copy_(tensor[order])
