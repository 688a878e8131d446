"""rank/subnets.jsonl: what was found out about each subnet, a line each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesearch.errors import SpaceError, StageError
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
        StageError: The file is damaged.
    """

    def __init__(self, path: Path, space: SearchSpace) -> None:
        self.path = path
        self.subnets: dict[Architecture, RankedSubnet] = {}
        if not path.exists():
            return
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):  # a kill tore the last line
            with path.open("r+b") as file:
                file.truncate(len(whole))
        try:
            for line in whole.splitlines():
                subnet = RankedSubnet.from_dict(json.loads(line), space)
                self.subnets[subnet.architecture] = subnet
        except (ValueError, KeyError, TypeError, AttributeError, SpaceError) as error:
            raise StageError(
                f"subnets that `edgesearch rank` wrote, a line of JSON each, in {path}",
                f"{type(error).__name__}: {error}",
                "Move the file away to rank anew.",
            ) from error

    def add(self, subnet: RankedSubnet) -> None:
        """Keep a subnet; it is on disk when this returns.

        Raises:
            StageError: The file cannot be written.
        """
        self.subnets[subnet.architecture] = subnet
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(subnet.to_dict()) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StageError(
                f"room to append to {self.path}",
                error.strerror or str(error),
                "Free space or choose another output_dir, then run the same command again.",
            ) from error
