"""trials.jsonl: all scored architectures, appended one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import in_short
from devices.files import JsonLines
from devices.values import in_yaml
from edgesearch.errors import SearchError, UserError
from edgesearch.space import Architecture, SearchSpace

FORMAT = 1


@dataclass(frozen=True)
class Trial:
    """A scored architecture."""

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
        """Read the result of `to_dict`."""
        architecture = space.from_choices(values["architecture"])
        return cls(**{**values, "architecture": architecture})


def read_trials(path: Path, space: SearchSpace) -> list[Trial]:
    """All trials of a log, whatever they were scored with; changes nothing.

    Raises:
        FileError: The file is missing, damaged, or of another space.
    """
    lines = JsonLines(path, "trials of a search", "Move the file away to search anew.")
    trials = []
    for number, values in lines.read()[1:]:
        with lines.line(number):
            trials.append(Trial.from_dict(values, space))
    return trials


class TrialLog:
    """trials.jsonl: a header that identifies the scores, then one line per trial.

    Args:
        identity: Everything that affects scores; a file with another identity is refused.

    Raises:
        FileError: The file is damaged, or cannot be read or written.
        SearchError: It is of another search; names the field.
    """

    def __init__(self, path: Path, space: SearchSpace, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._space = space
        self.trials: dict[Architecture, Trial] = {}
        header = json.loads(json.dumps({"format": FORMAT, "identity": dict(identity)}))
        self._header = header
        self._lines = JsonLines(path, "trials of a search", "Move the file away to search anew.")
        lines = self._lines.read(cut=True) if path.exists() else []
        if not lines:
            self._lines.append(header)
        for number, values in lines:
            if number == 1:
                with self._lines.line(number):
                    found = {"format": values.get("format"), **values["identity"]}
                self._check(found, header)
                continue
            with self._lines.line(number):
                trial = Trial.from_dict(values, self._space)
            self.trials[trial.architecture] = trial

    def _check(self, theirs: dict[str, Any], header: dict[str, Any]) -> None:
        ours = {"format": header["format"], **header["identity"]}
        for field in ours:
            if theirs.get(field) != ours[field]:
                raise SearchError(
                    f"trials with {field} {in_yaml(ours[field])} in {self.path}",
                    f"{field} {in_yaml(theirs.get(field))}",
                    "Restore the configuration, or move the file away to search anew.",
                )

    def adopt(self, path: Path, tell: Callable[[str], None] = lambda message: None) -> int:
        """Copy the new trials of a whole log with the same header; returns how many.

        A damaged one is told, and left alone.
        """
        if not path.exists():
            return 0
        try:
            lines = [values for _, values in JsonLines(path, "trials", "").read()]
            if lines[:1] != [self._header]:
                return 0
            found = [Trial.from_dict(values, self._space) for values in lines[1:]]
        except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            tell(f"the scores in {path} are not used again: damaged, {in_short(error)}")
            return 0
        new = [trial for trial in found if trial.architecture not in self.trials]
        for trial in new:
            self.add(trial)
        return len(new)

    def add(self, trial: Trial) -> None:
        """Append a trial; it is on disk when this returns."""
        self.trials[trial.architecture] = trial
        self._lines.append(trial.to_dict())
