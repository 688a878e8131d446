"""Command weights: what a file of weights is, and which spaces hold its network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgesearch.errors import CheckpointError
from edgesearch.families.load_space import known_spaces, load_space
from edgesearch.pretrain.make_trainer import weights_file
from edgesearch.space import SearchSpace
from edgesearch.supernet.public_weights import member, misfits, read_public_weights
from edgesearch.supernet.weights import metadata_of


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
    """Result of `describe_weights`.

    Attributes:
        params: Parameters of the backbone.
        mean: Mean of each input channel that the network expects, for pixel values in 0 … 1.
        std: Standard deviation of each input channel, likewise.
    """

    path: Path
    kind: str
    family: str
    architecture: str
    params: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    spaces: tuple[Fit, ...]


def describe_weights(path: Path) -> WeightsResult:
    """Recognise a file of public weights, or the file of a name in `PACKAGES`.

    Raises:
        CheckpointError: The file cannot be read, would run code, or holds no known network.
    """
    path = weights_file(path)
    if metadata_of(path):
        raise CheckpointError(
            "a file of public weights",
            f"a supernet of edgesearch at {path}",
            "`pretrain.init` takes it for a run of the same space.",
        )
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
        spaces=tuple(_fit(public.space, name) for name in known_spaces()),
    )


def _fit(source: SearchSpace, name: str) -> Fit:
    space = load_space(name)
    if faults := misfits(source, space):
        return Fit(name, None, False, "; ".join(faults))
    found, wanted = dict(member(source, space)), dict(source.largest)
    exact = all(found[choice] == wanted[choice] for choice in found if choice != "resolution")
    return Fit(name, str(member(source, space)), exact, None)
