"""Search spaces by name and from their dictionary form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devices.values import did_you_mean, in_yaml
from edgesearch.errors import SpaceError
from edgesearch.families.mobile.space import MobileSpace
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.space import SearchSpace

CATALOG = Path(__file__).parent / "catalog"
FAMILIES: dict[str, type[SearchSpace]] = {"resnet": ResNetSpace, "mobile": MobileSpace}
"""The families by name."""


def known_spaces() -> list[str]:
    """Names of the spaces that edgesearch includes."""
    return sorted(path.stem for path in CATALOG.glob("*.yaml"))


def load_space(name: str, **overrides: Any) -> SearchSpace:
    """A space that edgesearch includes, with some fields replaced.

    Raises:
        SpaceError: There is no space of this name, or a field is not valid.
    """
    import yaml

    path = CATALOG / f"{name}.yaml"
    if name not in known_spaces():
        raise SpaceError(
            f"the name of a space is one of {', '.join(known_spaces())}",
            repr(name),
            did_you_mean(
                name,
                known_spaces(),
                f"Choose one of these, or define your own, with `family`: {' or '.join(FAMILIES)}.",
            ),
        )
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return space_from_dict({"name": name, **values, **overrides})


def space_from_dict(values: Mapping[str, Any]) -> SearchSpace:
    """The space of a dictionary that `SearchSpace.to_dict` returned.

    Raises:
        SpaceError: The family is unknown, or a field is missing, unknown or not valid.
    """
    family = values.get("family", "resnet")
    if family not in list(FAMILIES):  # YAML may hold a list, which is not hashable
        raise SpaceError(
            f"the family of a space is one of {', '.join(FAMILIES)}",
            in_yaml(family),
            did_you_mean(str(family), FAMILIES.keys(), "Correct the field `family`."),
        )
    return FAMILIES[family].from_dict(values)
