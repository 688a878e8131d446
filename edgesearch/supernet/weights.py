"""Trained supernet weights: their file, and the subnets extracted from them."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from devices.files import no_permission, replacing
from edgesearch.errors import CheckpointError, SpaceError
from edgesearch.families import space_from_dict
from edgesearch.space import Architecture, SearchSpace
from edgesearch.space.network import Network
from edgesearch.supernet.calibrate import keep_statistics
from edgesearch.supernet.dynamic_ops import centre
from edgesearch.supernet.projector import Projector
from edgesearch.supernet.supernet import Supernet

State = Mapping[str, torch.Tensor]
FORMAT = "edgesearch-supernet-1"


@dataclass(frozen=True)
class Origin:
    """The public weights that a supernet began with.

    Attributes:
        source: File and kind.
        licence: Licence of the weights; None if unknown.
        member: Choices of the smallest architecture that holds the public network.
        trained: Whether the supernet has been trained since.
        mean: Mean of each input channel that the weights expect, for pixel values in 0 … 1.
        std: Standard deviation of each input channel, likewise.
    """

    source: str
    licence: str | None
    member: dict[str, int]
    trained: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class SupernetWeights:
    """Weights of the query encoder and of its moving average, the key encoder.

    The key encoder is used as the largest network only; methods without one (SimCLR) share the
    query's states. Only DenseCL has dense projectors. `method` is the training method, if known.
    `origin` describes the public weights that it began with, if any.
    """

    space: SearchSpace
    query: State
    query_projector: State
    key: State
    key_projector: State
    query_dense_projector: State | None = None
    key_dense_projector: State | None = None
    method: str | None = None
    origin: Origin | None = None

    def subnet(self, architecture: Architecture) -> Network:
        """A trained subnet, images to features; recalibrate before use."""
        return self._extract(self.query, architecture)

    def keeps_statistics(self, architecture: Architecture) -> bool:
        """Whether a subnet is public weights as they are, whose statistics are kept.

        Recalibration harms a trained network of which nothing was cut and nothing trained.
        """
        origin = self.origin
        if origin is None or origin.trained:
            return False
        return all(architecture[k] == v for k, v in origin.member.items() if k != "resolution")

    def embedder(self, architecture: Architecture) -> nn.Sequential:
        """A trained subnet with projector, images to embeddings; recalibrate before use."""
        return nn.Sequential(self.subnet(architecture), self.projector(architecture)).eval()

    def projector(self, architecture: Architecture) -> Projector:
        """The trained projector sliced to a subnet's features; recalibrate before use."""
        return _projector(self.query_projector, self.space.feature_dim(architecture))

    def reference(self) -> nn.Sequential:
        """The key encoder, images to embeddings; recalibrate before use."""
        largest = self.space.largest
        projector = _projector(self.key_projector, self.space.feature_dim(largest))
        return nn.Sequential(self._extract(self.key, largest), projector).eval()

    def _extract(self, state: State, architecture: Architecture) -> Network:
        network = extract(self.space, state, architecture)
        if self.keeps_statistics(architecture):
            keep_statistics(network)
        return network

    def save(self, path: Path) -> None:
        """Write weights and space to a safetensors file, atomically."""
        tensors = {
            f"{prefix}.{name}": tensor
            for prefix, state in self._parts().items()
            if state is not None
            for name, tensor in state.items()
        }
        about = {"format": FORMAT, "space": self.space.to_dict()}
        if self.key is self.query:
            about["key"] = "query"
        if self.method is not None:
            about["method"] = self.method
        if self.origin is not None:
            about["origin"] = asdict(self.origin)
        save_tensors(path, tensors, about)

    def _parts(self) -> dict[str, State | None]:
        query = {
            "query.backbone": self.query,
            "query.projector": self.query_projector,
            "query.dense_projector": self.query_dense_projector,
        }
        if self.key is self.query:  # safetensors refuses shared tensors
            return query
        return {
            **query,
            "key.backbone": self.key,
            "key.projector": self.key_projector,
            "key.dense_projector": self.key_dense_projector,
        }

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> SupernetWeights:
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: The file is missing, damaged, not a supernet, or of another space.
        """
        from safetensors import SafetensorError, safe_open

        parts: dict[str, dict[str, torch.Tensor]] = {}
        try:
            path.open("rb").close()  # safetensors says of any file that it is missing
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get("edgesearch", "{}"))
                _check(path, about, space)
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    encoder, part, rest = name.split(".", 2)
                    parts.setdefault(f"{encoder}.{part}", {})[rest] = file.get_tensor(name)
            key = about.get("key", "key")
            return cls(
                space,
                parts["query.backbone"],
                parts["query.projector"],
                parts[f"{key}.backbone"],
                parts[f"{key}.projector"],
                parts.get("query.dense_projector"),
                parts.get(f"{key}.dense_projector"),
                about.get("method"),
                _origin(about),
            )
        except PermissionError as error:
            raise no_permission(error, path) from error
        except (
            *(OSError, SafetensorError, SpaceError),
            *(LookupError, ValueError, TypeError, AttributeError),
        ) as error:
            missing = isinstance(error, FileNotFoundError)
            # what is missing is made again in any case
            run = "Run" if isinstance(error, OSError) else "Move it away, and run"
            raise CheckpointError(
                f"supernet weights in safetensors form at {path}",
                "no such file" if missing else f"{type(error).__name__}: {error}",
                f"{run} `edgesearch pretrain` to make them, or name another file.",
            ) from error


def save_tensors(path: Path, tensors: State, about: Mapping[str, Any]) -> None:
    """Write tensors, and plain values about them, to a safetensors file, atomically.

    Raises:
        FileError: They cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    packed = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        try:
            # One entry, since safetensors does not write several in a fixed order.
            save_file(packed, partial, {"edgesearch": json.dumps(about)})
        except SafetensorError as error:
            # safetensors tells the system's number in its text only.
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


def _origin(about: Mapping[str, Any]) -> Origin | None:
    """The origin in a file's metadata."""
    if "origin" not in about:
        return None
    values = about["origin"]
    return Origin(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def metadata_of(path: Path) -> dict[str, Any]:
    """What `SupernetWeights.save` says of a file, unchecked; empty for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(json.loads((file.metadata() or {}).get("edgesearch", "{}")))
    except (OSError, SafetensorError, ValueError):
        return {}


def read_origin(path: Path) -> Origin | None:
    """The origin of the supernet weights in a file; None if there is none."""
    try:
        return _origin(metadata_of(path))
    except (TypeError, LookupError):
        return None


def _check(path: Path, metadata: Mapping[str, Any], space: SearchSpace) -> None:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"supernet weights of the format {FORMAT!r} at {path}",
            f"the format {metadata.get('format')!r}",
            "Name a model.safetensors that `edgesearch pretrain` wrote.",
        )
    theirs = space_from_dict(metadata["space"])
    ours, found = space.to_dict(), theirs.to_dict()
    differing = [key for key in ours if key != "name" and ours[key] != found.get(key)]
    if differing:
        field = differing[0]
        raise CheckpointError(
            f"weights of the space {space.name!r} with {field} {ours[field]}",
            f"{field} {found.get(field)} (space {theirs.name!r}) in {path}",
            "Choose the space that the weights were trained for, or pre-train this one.",
        )


def extract(
    space: SearchSpace, weights: Mapping[str, torch.Tensor], architecture: Architecture
) -> Network:
    """A static network with the supernet's weights, given the state of its `backbone`.

    The normalisation statistics are the shared ones: `recalibrate` before use.

    Raises:
        SpaceError: The architecture is not in the space.
    """
    space.index(architecture)
    with torch.device("meta"):  # skips initialisation
        network = space.make_network(space.blocks(architecture))
    network.to_empty(device="cpu")
    copy_leading(weights, network)
    return network.eval()


def copy_leading(weights: Mapping[str, torch.Tensor], target: nn.Module) -> None:
    """Fill a module from larger tensors: leading channels, and the centres of kernels."""
    with torch.no_grad():
        for name, tensor in target.state_dict().items():
            given = weights[name]
            leading = tuple(slice(0, length) for length in tensor.shape[:2])
            tensor.copy_(given[leading + centre(given.shape[2:], tensor.shape[2:])])


def _projector(state: State, feature_dim: int) -> Projector:
    """The projector of a state, its first layer sliced to `feature_dim` inputs."""
    with torch.device("meta"):  # skips initialisation
        projector = Projector.like(state, feature_dim)
    projector.to_empty(device="cpu")
    copy_leading(state, projector)
    return projector


def random_like(weights: SupernetWeights, seed: int) -> SupernetWeights:
    """Untrained weights of the same shapes: the initial weights of a training with this seed."""
    space, state = weights.space, weights.query_projector
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        supernet = Supernet(space)
        projector = Projector.like(state, supernet.feature_dim)
    backbone, head = supernet.backbone.state_dict(), projector.state_dict()
    return SupernetWeights(space, backbone, head, backbone, head)
