"""rank/subnets.jsonl: what was found out about each subnet, a line each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.files import JsonLines
from edgesearch.space import Architecture, SearchSpace


@dataclass(frozen=True)
class RankedSubnet:
    """A subnet with its accuracy and all its scores.

    Attributes:
        architecture: The subnet.
        accuracy: On images held out, in 0 … 1.
        scores: By name, higher for what a score holds for better.
    """

    architecture: Architecture
    accuracy: float
    scores: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**vars(self), "architecture": dict(self.architecture)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], space: SearchSpace) -> RankedSubnet:
        """Read what `to_dict` wrote."""
        architecture = space.from_choices(values["architecture"])
        return cls(architecture, float(values["accuracy"]), dict(values["scores"]))


class RankedSubnets:
    """The lines of the file; a kill loses one at most.

    Args:
        path: The file; it may exist.
        space: Of the subnets.

    Raises:
        FileError: The file is damaged.
    """

    def __init__(self, path: Path, space: SearchSpace) -> None:
        self.path = path
        self.subnets: dict[Architecture, RankedSubnet] = {}
        self._lines = JsonLines(
            path, "subnets that `edgesearch rank` wrote", "Move the file away to rank anew."
        )
        for number, values in self._lines.read(cut=True) if path.exists() else []:
            with self._lines.line(number):
                subnet = RankedSubnet.from_dict(values, space)
            self.subnets[subnet.architecture] = subnet

    def add(self, subnet: RankedSubnet) -> None:
        """Keep a subnet; it is on disk when this returns.

        Raises:
            FileError: The file cannot be written.
        """
        self.subnets[subnet.architecture] = subnet
        self._lines.append(subnet.to_dict())
