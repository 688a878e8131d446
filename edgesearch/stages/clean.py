"""Command clean: what was set aside in an output folder, and its removal."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from devices.files import refuse_no_folder
from devices.locks import locked
from devices.values import in_yaml
from edgesearch.config import load_config, shipped_configs
from edgesearch.errors import StageError
from edgesearch.run.files import RunFiles
from edgesearch.run.stage import Stage, read_record, worked_s
from edgesearch.words import duration_words

_NUMBERED = re.compile(r"(?P<former>.+)\.(?P<number>\d+)")
_TABLE = re.compile(r"(?P<table>.+\.jsonl)\.\d+")
_MADE_FROM_TABLE = re.compile(r".+\.(csv|json|png)\.\d+")


@dataclass(frozen=True)
class SetAside:
    """Output that was kept under another name when a stage started over.

    Attributes:
        size_bytes: Its size on the disk.
        written: When it was last written, as `YYYY-MM-DD hh:mm`.
        about: What it is, and how it differs from what took its place.
    """

    path: Path
    size_bytes: int
    written: str
    about: str


@dataclass(frozen=True)
class CleanResult:
    """Result of `clean`."""

    output_dir: Path
    found: tuple[SetAside, ...]
    removed: bool

    @property
    def size_bytes(self) -> int:
        """Size of all together."""
        return sum(each.size_bytes for each in self.found)


def output_dir_of(config: str, overrides: Sequence[str] = ()) -> Path:
    """The output folder of a configuration, or the folder itself.

    Raises:
        ConfigError: The configuration cannot be read.
    """
    folder = Path(config)
    if folder.is_dir() and config not in shipped_configs():
        return folder
    return load_config(config, overrides).output_dir


def clean(
    output_dir: Path, agree: Callable[[tuple[SetAside, ...]], bool] = lambda found: False
) -> CleanResult:
    """List what was set aside in an output folder, and remove it if the user agrees.

    Current output is never removed.

    Args:
        output_dir: The folder.
        agree: Asked once with all that would be removed, if there is any.

    Raises:
        FileError: Another process is writing there, or it is no folder.
        StageError: Something cannot be removed.
    """
    refuse_no_folder(output_dir)
    files = RunFiles(output_dir)
    found = tuple(set_aside(files))
    if not found or not agree(found):
        return CleanResult(output_dir, found, removed=False)
    with locked(files.lock, protects=output_dir):
        for each in found:
            _remove(each.path)
    return CleanResult(output_dir, found, removed=True)


def set_aside(files: RunFiles) -> Iterator[SetAside]:
    """What was set aside in an output folder: stages, files of stages, tables, pictures."""
    for folder in files.stages:
        for path in _numbered(folder):
            if path.is_dir():
                yield SetAside(path, _size(path), _written(path), _about(folder, path))
        for name in (read_record(folder) or {}).get("outputs", ()):
            for path in filter(Path.is_file, _numbered(folder / name)):
                about = f"{name} as it was when it had changed or was damaged; it was made again"
                yield SetAside(path, path.stat().st_size, _written(path), about)
    latency = files.output_dir / "latency"
    for path in sorted(latency.glob("*")) if latency.is_dir() else ():
        if path.is_file() and (table := _TABLE.fullmatch(path.name)):
            about = f"a former latency table; {table['table']} took its place"
            yield SetAside(path, path.stat().st_size, _written(path), about)
        elif path.is_file() and _MADE_FROM_TABLE.fullmatch(path.name):
            about = "made from a former latency table"
            yield SetAside(path, path.stat().st_size, _written(path), about)


def _numbered(folder: Path) -> list[Path]:
    found = [
        (int(match["number"]), path)
        for path in folder.parent.glob(f"{folder.name}.*")
        if (match := _NUMBERED.fullmatch(path.name)) and match["former"] == folder.name
    ]
    return [path for _, path in sorted(found)]


def _about(folder: Path, path: Path) -> str:
    """The stage, its time of work, and what differs from the present output."""
    record, present = read_record(path), read_record(folder)
    if record is None:
        return f"a former {folder.name}, without a record of how it was made"
    state = "finished" if record["finished"] else "unfinished"
    text = f"{state}, {duration_words(worked_s(path, record))} of work"
    if present is None:
        return text
    former = Stage(folder.name, folder, record["settings"], record["inputs"])
    settings = former.plain_settings()
    made_with = [
        f"{key}={in_yaml(settings[key])}"
        if key in settings
        else f"other {key.removeprefix('the ')}"
        for key in former.changes(present)
        if not isinstance(settings.get(key), dict)
    ]
    if not former.changes(present):
        return f"{text}; made with the same as {folder.name}"
    more = f" and {len(made_with) - 3} more" if len(made_with) > 3 else ""
    return f"{text}; made with {', '.join(made_with[:3]) or 'another space or device'}{more}"


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise StageError(
            f"permission to remove {path}",
            error.strerror or str(error),
            "Get the permission, and run the same command again.",
        ) from error


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _written(path: Path) -> str:
    newest = max((each.stat().st_mtime for each in (path, *path.rglob("*"))), default=0.0)
    return f"{datetime.fromtimestamp(newest):%Y-%m-%d %H:%M}"
