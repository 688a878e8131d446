"""Every scored architecture, kept as it comes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesearch.errors import SearchError, UserError
from edgesearch.space import Architecture, SearchSpace

FORMAT = 1


@dataclass(frozen=True)
class Trial:
    """An architecture with its score and costs.

    Attributes:
        architecture: What was scored.
        agreement: Its score.
        latency_ms: Predicted median on the device.
        macs: Multiply-accumulates for one image.
        params: Learnable parameters.
    """

    architecture: Architecture
    agreement: float
    latency_ms: float
    macs: float
    params: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**vars(self), "architecture": dict(self.architecture)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], space: SearchSpace) -> Trial:
        """Read what `to_dict` wrote."""
        architecture = space.from_choices(values["architecture"])
        return cls(**{**values, "architecture": architecture})


class TrialLog:
    """trials.jsonl: a header that tells what was searched, then a line for each trial.

    Args:
        path: The file; it may exist.
        space: The space that is searched.
        identity: What makes scores comparable; a file with another one is refused.

    Raises:
        SearchError: The file is damaged, or of another search (names the field).
    """

    def __init__(self, path: Path, space: SearchSpace, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._space = space
        self.trials: dict[Architecture, Trial] = {}
        header = json.loads(json.dumps({"format": FORMAT, "identity": dict(identity)}))
        self._header = header
        if path.exists() and path.stat().st_size:
            self._read(header)
        if not path.exists() or not path.stat().st_size:
            self._append(header)

    def _read(self, header: dict[str, Any]) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):  # a kill tore the last line
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        if not whole:
            return
        try:
            first, *lines = [json.loads(line) for line in whole.splitlines()]
            self._check(first, header)
            for line in lines:
                trial = Trial.from_dict(line, self._space)
                self.trials[trial.architecture] = trial
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SearchError(
                f"trials of a search, a line of JSON each, in {self.path}",
                f"{type(error).__name__}: {error}",
                "Move the file away to search anew.",
            ) from error

    def _check(self, found: dict[str, Any], header: dict[str, Any]) -> None:
        theirs = {"format": found.get("format"), **found["identity"]}
        ours = {"format": header["format"], **header["identity"]}
        for field in ours:
            if theirs.get(field) != ours[field]:
                raise SearchError(
                    f"trials with {field} {ours[field]!r} in {self.path}",
                    f"{field} {theirs.get(field)!r}",
                    "Restore the configuration, or move the file away to search anew.",
                )

    def adopt(self, path: Path) -> int:
        """Take over the trials of another log, if it has the same header; else leave it alone.

        Args:
            path: The other log; it may be missing, torn or damaged.

        Returns:
            How many trials were not known.
        """
        try:
            first, *lines = path.read_bytes().split(b"\n")[:-1]
            if json.loads(first) != self._header:
                return 0
            found = [Trial.from_dict(json.loads(line), self._space) for line in lines]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
            return 0
        new = [trial for trial in found if trial.architecture not in self.trials]
        for trial in new:
            self.add(trial)
        return len(new)

    def add(self, trial: Trial) -> None:
        """Keep a trial; it is on disk when this returns."""
        self.trials[trial.architecture] = trial
        self._append(trial.to_dict())

    def _append(self, line: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SearchError(
                f"room to append to {self.path}",
                error.strerror or str(error),
                "Free space or choose another output_dir, then run the same command again.",
            ) from error
