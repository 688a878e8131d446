"""Whether a stage has been done, and with what."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesearch.run.output_folder import write_json

RECORD = "stage.json"


@dataclass(frozen=True)
class Stage:
    """A stage with all that decides its result.

    Attributes:
        name: Name of the stage.
        folder: Holds what the stage writes, and the record of it.
        config: The part of the configuration that it depends on, in plain values.
        inputs: Digests of what it reads, by a name to show.
        no_more: Keys that records of earlier versions have and that never mattered to what is kept.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    no_more: Collection[str] = ()

    def begin(self) -> tuple[bool, str]:
        """Find out what is to be done, and record that it has begun.

        If what the folder holds was made with something else, the folder is set aside under
        another name: nothing is lost, and the stage begins anew.

        Returns:
            Whether the stage is finished already, and what to tell about it.
        """
        record = self._read()
        if record is None:
            message = ""
            if self.folder.exists() and any(self.folder.iterdir()):
                message = f"no record of how {self.folder} was made; kept as {self._set_aside()}"
            self._write(False, ())
            return False, message
        change = self._change(record)
        if change:
            kept = self._set_aside()
            self._write(False, ())
            return False, f"{change}: done anew; what was there is kept as {kept}"
        if not record["finished"]:
            return False, "going on where it was stopped"
        missing = [name for name in record["outputs"] if not (self.folder / name).exists()]
        if missing:
            self._write(False, ())
            return False, f"{missing[0]} is gone: done again"
        return True, "finished before, and nothing it depends on has changed"

    def is_finished(self) -> bool:
        """Whether `begin` would find it so; changes nothing."""
        record = self._read()
        return (
            record is not None
            and bool(record["finished"])
            and not self._change(record)
            and all((self.folder / name).exists() for name in record["outputs"])
        )

    def reopen(self) -> None:
        """Record that there is more to do; what is there stays."""
        self._write(False, ())

    def finish(self, outputs: Sequence[str]) -> None:
        """Record that the stage is finished.

        Args:
            outputs: Paths below the folder that have to exist for it to be so.
        """
        self._write(True, outputs)

    def _set_aside(self) -> Path:
        number = 1
        while (kept := self.folder.with_name(f"{self.folder.name}.{number}")).exists():
            number += 1
        self.folder.rename(kept)
        return kept

    def _change(self, record: Mapping[str, Any]) -> str:
        for kind, now in (("config", self.plain_config()), ("inputs", dict(self.inputs))):
            former = record[kind]
            for key in now | former:  # the first that stands in the configuration is told
                if key not in self.no_more and former.get(key) != now.get(key):
                    if kind == "inputs":
                        return f"{key} has changed"
                    path, before, after = _first_difference(key, former.get(key), now.get(key))
                    return f"{path} has changed from {before!r} to {after!r}"
        return ""

    def plain_config(self) -> dict[str, Any]:
        """The configuration in plain JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(dict(self.config)))
        return plain

    def _read(self) -> dict[str, Any] | None:
        return _read_record(self.folder)

    def _write(self, finished: bool, outputs: Sequence[str]) -> None:
        record = {
            "stage": self.name,
            "finished": finished,
            "config": self.plain_config(),
            "inputs": dict(self.inputs),
            "outputs": list(outputs),
        }
        write_json(self.folder / RECORD, record)


def was_finished_with(folder: Path, key: str, value: Any) -> bool:
    """Whether a stage was finished in a folder with this value in its configuration."""
    record = _read_record(folder)
    if record is None or not record["finished"]:
        return False
    return bool(record["config"].get(key) == json.loads(json.dumps(value)))


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text("utf-8"))
        return record if {"config", "inputs", "finished", "outputs"} <= set(record) else None
    except (OSError, ValueError, TypeError):
        return None


def _first_difference(path: str, before: Any, after: Any) -> tuple[str, Any, Any]:
    """The innermost key behind a change, and its values."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in after | before:
            if before.get(key) != after.get(key):
                return _first_difference(f"{path}.{key}", before.get(key), after.get(key))
    return path, before, after


def prefixed(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the path of their key in the configuration."""
    return {f"{section}.{name}": value for name, value in values.items()}
