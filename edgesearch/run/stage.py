"""The stage runner: what a stage was made with, whether it is finished, and how it runs."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from devices.files import next_number, numbered, sha256_of, write_json
from devices.values import in_yaml
from edgesearch.config.keys import is_default
from edgesearch.errors import StageError
from edgesearch.events import Event
from edgesearch.processes import distributed
from edgesearch.run.context import RunContext
from edgesearch.run.files import RECORD
from edgesearch.settings import AUTO
from edgesearch.words import duration_words

FEW_MINUTES_S = 180.0
"""Output that took longer is set aside only if the user says so."""
_CHECKS_ITSELF = ".jsonl"
"""Ending of logs, whose reader names a damaged line and leaves out a torn one."""
_FOLLOWS_FROM = {
    "latency_of": "finetune.task, finetune.head and finetune.classes",
    "references": "pretrain.init and pretrain.teacher",
}
"""What the user sets, by names in records that are no keys of the configuration."""
FINISHED = "already finished, and nothing it depends on has changed"
Prepared = TypeVar("Prepared")


class Former(NamedTuple):
    """Output of a stage, in its folder or set aside, with its record."""

    folder: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A stage with everything that determines its result.

    Attributes:
        name: Name of the stage.
        folder: Output folder of the stage; also holds its record.
        settings: Options that it depends on, in plain values by key path.
        inputs: Digests of its inputs, by display name.
        cheap: Names of settings and inputs whose change loses little work: output that differs in
            these alone is set aside without asking.
        intact: Whether finished outputs are what they were.
        instead: A sentence on what else the user can do than start over.
        begins: How it begins where the former output was made with something else, in words.
        chosen: What was chosen for settings that are `AUTO`, see `settle`.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    cheap: Collection[str] = ()
    intact: Callable[[], bool] = field(default=lambda: True, compare=False)
    instead: str = ""
    begins: str = "starting over"
    chosen: dict[str, Any] = field(default_factory=dict, compare=False)

    def do(
        self,
        run: RunContext,
        prepare: Callable[[], Prepared],
        work: Callable[[Prepared], Sequence[str]],
        help: Callable[[Prepared], None] | None = None,
        *,
        anew: bool = False,
    ) -> bool:
        """Do the work that is missing; output made with other settings is set aside first.

        Under torchrun all processes call this; only the first keeps the record.

        Args:
            run: Receives the progress reports; holds the lock, unless another process works there.
            prepare: Makes all checks that can refuse the work, before anything is set aside; its
                result is passed on.
            work: Does the work; returns paths below the folder that must exist for the stage to be
                finished.
            help: What the other processes do instead of `work`.
            anew: Set aside output even if it took longer than a few minutes.

        Returns:
            Whether the stage was already finished.

        Raises:
            StageError: More than a few minutes of work would be set aside.
            FileError: There is work to do, and the output folder cannot be locked.
        """
        first = distributed.rank() == 0
        tell = run.teller(self.name)
        if first and not self.is_finished():
            run.require_lock()
            self.take_back(tell)
        finished: bool = distributed.of_first(first and self.is_finished())
        if finished:
            if first:
                tell(FINISHED)
            return True
        if first:
            self.check_loss(anew)
        prepared = prepare()
        distributed.of_all(None)  # barrier: every process passed its checks
        if first:
            run.keep_config()
            if message := self.begin():
                run.report(Event(self.name, message))
            self.finish(work(prepared))
        else:
            (help or work)(prepared)
        return False

    def is_finished(self) -> bool:
        """Whether nothing is left to do; changes nothing."""
        record = read_record(self.folder)
        return (
            record is not None
            and bool(record["finished"])
            and not self.changes(record)
            and not self._fault(record)
        )

    def fault(self) -> str:
        """What is wrong with output that was finished, in words; empty if nothing is."""
        record = read_record(self.folder)
        if record is None or not record["finished"] or self.changes(record):
            return ""
        return self._fault(record)

    def _fault(self, record: Mapping[str, Any]) -> str:
        if missing := _missing(self.folder, record):
            return f"{missing[0]} is missing"
        if changed := _changed(self.folder, record):
            return f"{changed[0]} has changed since it was made"
        return "" if self.intact() else "some of its files are missing or changed"

    def can_take_back(self) -> bool:
        """Whether a folder that was set aside was made with just what is asked for now."""
        return self._match() is not None

    def take_back(self, tell: Callable[[str], None] = lambda message: None) -> bool:
        """Exchange the folder for one that was set aside and was made with what is asked for now.

        A kill between the two renames leaves no folder: the next call renames the second.
        """
        match = self._match()
        if match is None:
            return False
        aside = f"; what was in {self.folder} is kept as {self._set_aside()}" if self._holds else ""
        if self.folder.exists():  # empty
            self.folder.rmdir()
        match.folder.rename(self.folder)
        tell(f"{match.folder} was made with what is asked for now, and is taken back{aside}")
        return True

    def check_loss(self, anew: bool) -> None:
        """Refuse to set aside more than a few minutes of work.

        Raises:
            StageError: Names what has changed, how long the work took, and the ways on.
        """
        record = read_record(self.folder)
        changes = {} if record is None else self.changes(record)
        if anew or not self._holds or (record is not None and set(changes) <= {*self.cheap}):
            return
        seconds = worked_s(self.folder, record)
        if seconds <= FEW_MINUTES_S or self.can_take_back():
            return
        found, keep = f"no record of how {self.folder} was made", "Choose"
        if record is not None:
            found = " and ".join(change.words for change in changes.values())
            keep = f"To keep it, {' and '.join(c.undo for c in changes.values())}, or choose"
        raise StageError(
            f"the {self.name} stage in {self.folder}, which took {duration_words(seconds)}, "
            "as it is",
            found,
            f"{keep} another output_dir.{self.instead} To start over, add --anew (in Python: "
            "anew=True): the former output is kept under another name.",
        )

    def begin(self) -> str:
        """Record that the stage has begun, or goes on; returns a message.

        If the output was made with other settings or inputs, its folder is kept under another name
        and the stage starts from scratch.
        """
        record = read_record(self.folder)
        message = ""
        if record is None:
            if self._holds:
                message = f"no record of how {self.folder} was made; kept as {self._set_aside()}"
        elif changes := self.changes(record):
            words = "; ".join(change.words for change in changes.values())
            kept = self._set_aside()
            message = (
                f"{words}: {self.begins}; the former output is kept as {kept} "
                "(`edgesearch clean` lists and removes such folders)"
            )
        elif not record["finished"]:
            message = "resuming where it was stopped"
        elif fault := self._fault(record):
            changed = [self._keep(name) for name in _changed(self.folder, record)]
            also = f" (kept as {', '.join(changed)})" if changed else ""
            message = f"{fault}{also}: starting again"
        self._write(False, (), began=time.time())
        return message

    def settle(self, chosen: Mapping[str, Any]) -> None:
        """Record from now on what was chosen for settings that are `AUTO`."""
        self.chosen.update(chosen)

    def settled(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What was chosen, according to a record, for settings that are `AUTO`."""
        former = record["settings"]
        names = (name for name, value in self.settings.items() if value == AUTO)
        return {name: former[name] for name in names if former.get(name, AUTO) != AUTO}

    def finish(self, outputs: Sequence[str]) -> None:
        """Record that the stage is finished, as long as `outputs` exist (paths below `folder`)."""
        self._write(True, outputs, began=None)

    def former(self) -> Iterator[Former]:
        """All output of the stage that has a record, the folder first, then what was set aside."""
        pattern = re.compile(re.escape(self.folder.name) + r"\.\d+")
        beside = self.folder.parent.glob(f"{self.folder.name}.*")
        aside = [path for path in beside if pattern.fullmatch(path.name)]
        for folder in (self.folder, *sorted(aside)):
            record = read_record(folder)
            if record is not None:
                yield Former(folder, record)

    def _keep(self, name: str) -> str:
        """Rename output that has changed, so that it is made again; the new name."""
        path = self.folder / name
        return path.rename(numbered(path, next_number(path))).name

    @property
    def _holds(self) -> bool:
        return self.folder.exists() and any(self.folder.iterdir())

    def _match(self) -> Former | None:
        """The set aside output with the most work, if that in the folder itself does not match."""
        record = read_record(self.folder)
        if record is not None and not self.changes(record):
            return None
        matches = [
            former
            for former in self.former()
            if former.folder != self.folder and not self.changes(former.record)
        ]
        return max(
            matches,
            key=lambda former: (
                former.record["finished"] and not _missing(*former),
                worked_s(*former),
            ),
            default=None,
        )

    def _set_aside(self) -> Path:
        return self.folder.rename(numbered(self.folder, next_number(self.folder)))

    def changes(self, record: Mapping[str, Any]) -> dict[str, Change]:
        """What differs from a record, by name of the setting or input.

        A setting that is `AUTO` agrees with whatever was chosen for it. One that the record lacks
        is newer than the record, and agrees with its default.
        """
        found = {}
        for kind, now in (("settings", self.plain_settings()), ("inputs", dict(self.inputs))):
            former = record[kind]
            for key in now | former:  # the order of the configuration
                if former.get(key) == now.get(key):
                    continue
                left_open = now.get(key) == AUTO and key in former
                if not left_open and (key in former or not is_default(key, now[key])):
                    found[key] = (
                        Change(f"other than before: {key}", f"restore {key}")
                        if kind == "inputs"
                        else Change.of(key, former.get(key), now.get(key))
                    )
        return found

    def plain_settings(self) -> dict[str, Any]:
        """The settings in plain JSON types, with what was chosen."""
        return cast("dict[str, Any]", json.loads(json.dumps({**self.settings, **self.chosen})))

    def _write(self, finished: bool, outputs: Sequence[str], *, began: float | None) -> None:
        """Write the record; time since the last `began` counts as work."""
        former = read_record(self.folder)
        seconds = 0.0
        if former is not None:
            until = time.time() if finished else None
            seconds = worked_s(self.folder, former, until)
        record = {
            "stage": self.name,
            "finished": finished,
            "seconds": seconds,
            "began": began,
            "settings": self.plain_settings(),
            "inputs": dict(self.inputs),
            "outputs": list(outputs),
            "contents": {
                name: _content(self.folder / name)
                for name in outputs
                if not name.endswith(_CHECKS_ITSELF) and (self.folder / name).is_file()
            },
        }
        write_json(self.folder / RECORD, record)


class Change(NamedTuple):
    """A difference from a record, and how to undo it."""

    words: str
    undo: str

    @classmethod
    def of(cls, path: str, before: Any, after: Any) -> Change:
        """The innermost key of a setting that differs."""
        while isinstance(before, dict) and isinstance(after, dict):
            key = next(key for key in after | before if before.get(key) != after.get(key))
            path, before, after = f"{path}.{key}", before.get(key), after.get(key)
        was, now = in_yaml(before), in_yaml(after)
        given = before if isinstance(before, str) else "" if before is None else json.dumps(before)
        undo = f"set {shlex.quote(f'{path}={given}')}"
        if path in _FOLLOWS_FROM:
            undo = f"restore {_FOLLOWS_FROM[path]}"
        return cls(f"{path} has changed from {was} to {now}", undo)


def tell_if_outdated(
    run: RunContext, reader: str, name: str, folder: Path, settings: Mapping[str, Any]
) -> None:
    """Report output of a stage that was made with other settings than those of now.

    Args:
        run: The run.
        reader: Name of the stage that uses the output.
        name: Name of the stage that made it.
        folder: Its folder.
        settings: What it would depend on now.
    """
    record = read_record(folder)
    if record is None:
        return
    changes = Stage(name, folder, settings, record["inputs"]).changes(record)
    if changes:
        words = " and ".join(change.words for change in changes.values())
        run.teller(reader)(
            f"warning: {folder} was made with other settings: {words}; run `edgesearch {name}` to "
            "make it with those of now"
        )


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in a stage's folder; None if it is missing or incomplete."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text("utf-8"))
        wanted = {"settings", "inputs", "finished", "outputs", "seconds", "began"}
        return record if wanted <= set(record) else None
    except (OSError, ValueError, TypeError):
        return None


def worked_s(folder: Path, record: Mapping[str, Any] | None, until: float | None = None) -> float:
    """Seconds of work in a folder, as long as its files were written.

    A killed process records no end: by default the work since it began, or since the oldest file
    without a record, lasted up to the newest file.
    """
    times = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
    if record is None:
        return max(times, default=0.0) - min(times, default=0.0)
    began = record["began"]
    if began is None:
        return float(record["seconds"])
    return float(record["seconds"]) + max(0.0, (until or max(times, default=began)) - began)


def _content(path: Path) -> dict[str, Any]:
    """What tells whether a file has changed, quickly where it has not been written to."""
    status = path.stat()
    digest = sha256_of(path)
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns, "sha256": digest}


def _changed(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """Outputs of other content than when the stage finished; missing ones are none."""
    found = []
    for name, content in record.get("contents", {}).items():
        path = folder / name
        if not path.exists():
            continue
        status = path.stat()
        if status.st_size == content["bytes"]:
            if status.st_mtime_ns == content["modified_ns"]:
                continue
            if sha256_of(path) == content["sha256"]:  # copied, or restored
                continue
        found.append(name)
    return found


def _missing(folder: Path, record: Mapping[str, Any]) -> list[str]:
    return [name for name in record["outputs"] if not (folder / name).exists()]
