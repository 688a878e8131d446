"""Command weights: what a file of weights is, and which spaces hold its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesearch.errors import CheckpointError
from edgesearch.families.load_space import known_spaces, load_space, space_from_dict
from edgesearch.pretrain.make_trainer import weights_file
from edgesearch.space import SearchSpace
from edgesearch.supernet.public_weights import member, misfits, read_public_weights
from edgesearch.supernet.weight_packages import PACKAGES
from edgesearch.supernet.weights import FORMAT, metadata_of, read_origin


@dataclass(frozen=True)
class Fit:
    """Whether a space of edgesearch holds a network.

    Attributes:
        member: The smallest architecture that holds it; None if none does.
        exact: Whether the member is the network itself, at another resolution perhaps.
        reason: Why no architecture holds it.
    """

    space: str
    member: str | None
    exact: bool
    reason: str | None


@dataclass(frozen=True)
class WeightsResult:
    """Result of `describe_weights` for public weights.

    Attributes:
        params: Parameters of the backbone.
        mean: Mean of each input channel that the network expects, for pixel values in 0 … 1.
        std: Standard deviation of each input channel, likewise.
        licence: Licence of weights from a package; None if unknown.
    """

    path: Path
    kind: str
    family: str
    architecture: str
    params: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str | None
    spaces: tuple[Fit, ...]


@dataclass(frozen=True)
class OwnWeightsResult:
    """Result of `describe_weights` for a supernet of edgesearch.

    Attributes:
        method: The method that trained it.
        architectures: Number of architectures of its space.
        source: File and kind of the public weights that it began with, if any.
        licence: Their licence, if known.
    """

    path: Path
    space: str
    family: str
    method: str | None
    architectures: int
    source: str | None
    licence: str | None


def describe_weights(path: Path) -> WeightsResult | OwnWeightsResult:
    """Recognise a file of weights: public ones, a name in `PACKAGES`, or a run or its supernet.

    Raises:
        CheckpointError: The file cannot be read, would run code, or holds no known network.
    """
    package = PACKAGES.get(str(path))
    path = weights_file(path)
    if about := metadata_of(path):
        return _of_edgesearch(path, about)
    public = read_public_weights(path)
    space, network = public.space, public.space.largest
    return WeightsResult(
        path=path,
        kind=public.kind,
        family=space.family,
        architecture=str(network).rsplit("_r", 1)[0],
        params=space.params(network),
        mean=public.mean,
        std=public.std,
        licence=package.licence if package else None,
        spaces=tuple(_fit(public.space, name) for name in known_spaces()),
    )


def _of_edgesearch(path: Path, about: Mapping[str, Any]) -> OwnWeightsResult:
    if about.get("format") != FORMAT:
        raise CheckpointError(
            f"public weights, or the supernet of a run, at {path}",
            "a subnet that edgesearch has exported",
            "`edgesearch.load_subnet` reads it in Python; pretrain.init takes the run's folder.",
        )
    origin, space = read_origin(path), space_from_dict(about["space"])
    return OwnWeightsResult(
        path=path,
        space=space.name,
        family=space.family,
        method=about.get("method"),
        architectures=space.size,
        source=None if origin is None else origin.source,
        licence=None if origin is None else origin.licence,
    )


def _fit(source: SearchSpace, name: str) -> Fit:
    space = load_space(name)
    if faults := misfits(source, space):
        return Fit(name, None, False, "; ".join(faults))
    found, wanted = dict(member(source, space)), dict(source.largest)
    exact = all(found[choice] == wanted[choice] for choice in found if choice != "resolution")
    return Fit(name, str(member(source, space)), exact, None)
