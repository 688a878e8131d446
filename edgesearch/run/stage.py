"""The stage runner: what a stage was made with, whether it is finished, and how it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from devices.files import write_json
from devices.values import in_yaml
from edgesearch.events import Event
from edgesearch.processes import distributed
from edgesearch.run.context import RunContext
from edgesearch.run.files import RECORD

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Stage:
    """A stage with everything that determines its result.

    Attributes:
        name: Name of the stage.
        folder: Output folder of the stage; also holds its record.
        settings: Options that it depends on, in plain values by key path.
        inputs: Digests of its inputs, by display name.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]

    def do(
        self,
        run: RunContext,
        prepare: Callable[[], Prepared],
        work: Callable[[Prepared], Sequence[str]],
        help: Callable[[Prepared], None] | None = None,
    ) -> bool:
        """Do the work that is missing; output made with other settings is set aside first.

        Under torchrun all processes call this; only the first keeps the record.

        Args:
            run: Receives the progress reports.
            prepare: Makes all checks that can refuse the work, before anything is set aside; its
                result is passed on.
            work: Does the work; returns paths below the folder that must exist for the stage to be
                finished.
            help: What the other processes do instead of `work`.

        Returns:
            Whether the stage was already finished.
        """
        first = distributed.rank() == 0
        finished: bool = distributed.of_first(first and self.is_finished())
        if not finished:
            prepared = prepare()
            distributed.of_all(None)  # barrier: every process passed its checks
        message = self.begin()[1] if first else ""
        if message:
            run.report(Event(self.name, message))
        if finished:
            return True
        if first:
            self.finish(work(prepared))
        else:
            (help or work)(prepared)
        return False

    def begin(self) -> tuple[bool, str]:
        """Determine what is to be done, and record that the stage has begun.

        If the output was made with other settings or inputs, its folder is kept under another name
        and the stage starts from scratch.

        Returns:
            Whether the stage is already finished, and a message.
        """
        record = read_record(self.folder)
        if record is None:
            message = ""
            if self.folder.exists() and any(self.folder.iterdir()):
                message = f"no record of how {self.folder} was made; kept as {self._set_aside()}"
            self.reopen()
            return False, message
        change = self._change(record)
        if change:
            kept = self._set_aside()
            self.reopen()
            return False, f"{change}: starting over; the former output is kept as {kept}"
        if not record["finished"]:
            return False, "resuming where it was stopped"
        missing = [name for name in record["outputs"] if not (self.folder / name).exists()]
        if missing:
            self.reopen()
            return False, f"{missing[0]} is missing: starting again"
        return True, "already finished, and nothing it depends on has changed"

    def is_finished(self) -> bool:
        """Whether `begin` would find the stage finished; changes nothing."""
        record = read_record(self.folder)
        return (
            record is not None
            and bool(record["finished"])
            and not self._change(record)
            and all((self.folder / name).exists() for name in record["outputs"])
        )

    def reopen(self) -> None:
        """Record that the stage is unfinished; existing files stay."""
        self._write(False, ())

    def finish(self, outputs: Sequence[str]) -> None:
        """Record that the stage is finished, as long as `outputs` exist (paths below `folder`)."""
        self._write(True, outputs)

    def _set_aside(self) -> Path:
        number = 1
        while (kept := self.folder.with_name(f"{self.folder.name}.{number}")).exists():
            number += 1
        self.folder.rename(kept)
        return kept

    def _change(self, record: Mapping[str, Any]) -> str:
        for kind, now in (("settings", self.plain_settings()), ("inputs", dict(self.inputs))):
            former = record[kind]
            for key in now | former:  # the order of the configuration
                if former.get(key) != now.get(key):
                    if kind == "inputs":
                        return f"{key} has changed"
                    path, before, after = _first_difference(key, former.get(key), now.get(key))
                    return f"{path} has changed from {in_yaml(before)} to {in_yaml(after)}"
        return ""

    def plain_settings(self) -> dict[str, Any]:
        """The settings in plain JSON types."""
        return cast("dict[str, Any]", json.loads(json.dumps(dict(self.settings))))

    def _write(self, finished: bool, outputs: Sequence[str]) -> None:
        record = {
            "stage": self.name,
            "finished": finished,
            "settings": self.plain_settings(),
            "inputs": dict(self.inputs),
            "outputs": list(outputs),
        }
        write_json(self.folder / RECORD, record)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in a stage's folder; None if it is missing or incomplete."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text("utf-8"))
        return record if {"settings", "inputs", "finished", "outputs"} <= set(record) else None
    except (OSError, ValueError, TypeError):
        return None


def _first_difference(path: str, before: Any, after: Any) -> tuple[str, Any, Any]:
    """The innermost key that differs, and its values."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in after | before:
            if before.get(key) != after.get(key):
                return _first_difference(f"{path}.{key}", before.get(key), after.get(key))
    return path, before, after
