"""Commands spaces and configs: what can be chosen."""

from __future__ import annotations

from dataclasses import dataclass

from edgesearch.config.load_config import SHIPPED, load_config, shipped_configs
from edgesearch.families.load_space import CATALOG, known_spaces, load_space


@dataclass(frozen=True)
class SpaceEntry:
    """A space of the catalog; figures are of its smallest and its largest network.

    Attributes:
        size: Number of architectures, over all resolutions.
        resolutions: In pixels.
        about: What it is for.
    """

    name: str
    family: str
    size: int
    resolutions: tuple[int, ...]
    macs: tuple[int, int]
    params: tuple[int, int]
    about: str


@dataclass(frozen=True)
class SpacesResult:
    """Result of `spaces`."""

    spaces: tuple[SpaceEntry, ...]


@dataclass(frozen=True)
class ConfigEntry:
    """A configuration that comes with edgesearch.

    Attributes:
        space: Name of its space.
        about: The first sentence of its head.
    """

    name: str
    space: str
    about: str


@dataclass(frozen=True)
class ConfigsResult:
    """Result of `configs`."""

    configs: tuple[ConfigEntry, ...]


def spaces() -> SpacesResult:
    """The spaces of the catalog."""
    return SpacesResult(tuple(map(_space, known_spaces())))


def configs() -> ConfigsResult:
    """The configurations that come with edgesearch."""
    return ConfigsResult(tuple(map(_config, shipped_configs())))


def _space(name: str) -> SpaceEntry:
    space = load_space(name)
    ends = space.smallest, space.largest
    smallest_macs, largest_macs = map(space.macs, ends)
    smallest_params, largest_params = map(space.params, ends)
    return SpaceEntry(
        name,
        space.family,
        space.size,
        space.resolutions,
        (smallest_macs, largest_macs),
        (smallest_params, largest_params),
        _head((CATALOG / f"{name}.yaml").read_text("utf-8")),
    )


def _config(name: str) -> ConfigEntry:
    text = (SHIPPED / f"{name}.yaml").read_text("utf-8")
    space = load_config(name).space
    return ConfigEntry(name, space.name or "", _head(text))


def _head(text: str) -> str:
    """The words of the comment that a file begins with, up to its first command."""
    words: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#") or line.startswith("#  "):
            break
        words.append(line.lstrip("# ").strip())
    return " ".join(words).strip().rstrip(":")
