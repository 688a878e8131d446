"""Tar files of images, read in place: an index of the members, and their bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from devices.errors import FileError
from devices.files import replacing
from edgesearch.data.decode import EXTENSIONS
from edgesearch.errors import DataError

OPEN_SHARDS = 128
"""Shards that a process keeps open."""
LABEL_KEYS = ("label", "cls")
"""Keys of a JSON member that may hold the label."""
INDEX_FORMAT = 3


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file, as it was when its index was made.

    Attributes:
        path: The file.
        size: In bytes.
        mtime_ns: When it was last changed.
    """

    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class ShardImage:
    """An image file inside a shard.

    Attributes:
        shard: The tar file.
        name: Name of the member.
        offset: First byte of its content in the shard.
        size: Of its content, in bytes.
    """

    shard: Shard
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard.path}: {self.name} (from byte {self.offset} on)"

    def read(self) -> bytes:
        """The content, by one read that moves no position: any thread or process may do so.

        Raises:
            DataError: The shard is gone, or not as it was.
        """
        handle = _opened(self.shard)  # held: two threads that open a shard at once open it twice
        content = os.pread(handle.number, self.size, self.offset)
        if len(content) < self.size:
            raise _changed(self.shard, f"it ends at byte {self.offset + len(content)}")
        return content


class _Handle:
    """An open file, closed with the last reference to it."""

    number = -1

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


@lru_cache(maxsize=OPEN_SHARDS)
def _opened(shard: Shard) -> _Handle:
    """The open shard; each process opens it when it first reads from it."""
    try:
        handle = _Handle(shard.path)
    except OSError as error:
        raise _changed(shard, error.strerror or str(error)) from error
    status = os.fstat(handle.number)
    if (status.st_size, status.st_mtime_ns) != (shard.size, shard.mtime_ns):
        raise _changed(shard, "it has been written to")
    return handle


def _changed(shard: Shard, found: str) -> DataError:
    return DataError(
        f"the shard {shard.path} as it was when its index was made",
        found,
        "Leave the shards as they are while edgesearch works.",
    )


def index_shard(path: Path, cache_dir: Path | None = None) -> list[tuple[ShardImage, int | None]]:
    """The images of a shard, in its order, each with its label if there is one.

    An image is any member with the ending of one. Members of the same key belong together, as in
    WebDataset: the label of `0001.jpg` is the whole number in `0001.cls`, or that under `label`
    or `cls` in `0001.json`.

    Args:
        path: An uncompressed tar file.
        cache_dir: Keeps the index, by path, size and time of change of the shard.

    Raises:
        DataError: The shard cannot be read, is damaged or cut off (names the byte), or a label
            is not a whole number.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    shard = Shard(path, status.st_size, status.st_mtime_ns)
    key = f"{INDEX_FORMAT} {path.absolute()} {shard.size} {shard.mtime_ns}"
    digest = hashlib.sha256(os.fsencode(key)).hexdigest()
    kept = None if cache_dir is None else cache_dir / f"{digest[:32]}.json"
    rows = None if kept is None else _kept_rows(kept)
    if rows is None:
        rows = _rows(shard)
        if kept is not None:
            _keep(kept, rows)
    return [(ShardImage(shard, name, offset, size), label) for name, offset, size, label in rows]


def _kept_rows(kept: Path) -> list[list[Any]] | None:
    try:
        rows: list[list[Any]] = json.loads(kept.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return rows


def _keep(kept: Path, rows: list[list[Any]]) -> None:
    """Write an index in one piece; where that cannot be, it is made again next time."""
    with contextlib.suppress(FileError), replacing(kept, shared=True) as partial:
        partial.write_text(json.dumps(rows), "utf-8")


def _rows(shard: Shard) -> list[list[Any]]:
    """Name, offset, size and label of each image."""
    rows: list[list[Any]] = []
    images: list[tuple[str, int, int]] = []
    labels: dict[str, int] = {}
    former: tarfile.TarFile | None = None
    for archive, member in _members(shard):
        if archive is not former:  # names are of one archive: another may have them again
            rows += [[*image, _label_of(image[0], labels)] for image in images]
            images, labels, former = [], {}, archive
        name = PurePosixPath(member.name)
        ending = name.suffix.lower()
        if name.name.startswith(".") or not member.isreg() or member.issparse():
            continue
        if ending in EXTENSIONS:
            images.append((member.name, member.offset_data, member.size))
        elif ending in (".cls", ".json"):
            content = archive.extractfile(member)
            assert content is not None
            label = _label(f"{shard.path}: {member.name}", ending, content.read())
            if label is not None:
                labels[str(name.with_suffix(""))] = label
    return rows + [[*image, _label_of(image[0], labels)] for image in images]


def _label_of(name: str, labels: dict[str, int]) -> int | None:
    """By the name without its ending, or by WebDataset's key: up to the name's first dot."""
    path = PurePosixPath(name)
    key = path.with_name(path.name.split(".")[0])
    return labels.get(str(path.with_suffix("")), labels.get(str(key)))


def _label(where: str, ending: str, content: bytes) -> int | None:
    try:
        text = content.decode("utf-8")
        values = {"cls": int(text)} if ending == ".cls" else json.loads(text)
        label = next((values[key] for key in LABEL_KEYS if key in values), None)
        whole = isinstance(label, int) and not isinstance(label, bool)
        if label is None or (whole and abs(label) < 1 << 63):
            return label
        found = repr(label)
    except (ValueError, TypeError):
        found = repr(content[:40])
    raise DataError(
        f"a whole number as the label in {where}",
        found,
        "Number the classes, or leave out this member.",
    )


def _members(shard: Shard) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """All members; what is wrong with the file is told with the byte.

    Archives that were written one after the other into a file (`cat`, `tar --concatenate`) have an
    end each; all of them are read.
    """
    start: int | None = 0
    try:
        with shard.path.open("rb") as file:
            while start is not None:
                file.seek(start)
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    yield from ((archive, member) for member in archive)
                    start = _after_the_end(shard, file, archive.offset)
    except tarfile.ReadError as error:
        if "end of data" in str(error):
            raise _damaged(shard, shard.size, "a member is cut off") from error
        raise _damaged(shard, 0, f"no uncompressed tar file ({error})") from error
    except OSError as error:
        raise _unreadable(shard.path, error) from error


def _after_the_end(shard: Shard, file: BinaryIO, end: int) -> int | None:
    """Where the next archive begins, None if there is none.

    tarfile stops at a damaged header as it does at the end, which is a block of zeros.
    """
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise _damaged(shard, shard.size, "the end of the archive is missing")
    if any(block):
        raise _damaged(shard, end, "no header of a member")
    place = end + len(block)
    while blocks := file.read(2048 * tarfile.BLOCKSIZE):
        zeros = len(blocks) - len(blocks.lstrip(b"\0"))
        if zeros < len(blocks):
            return place + zeros - zeros % tarfile.BLOCKSIZE
        place += len(blocks)
    return None


def _damaged(shard: Shard, byte: int, reason: str) -> DataError:
    return DataError(
        f"a whole shard at {shard.path}",
        f"damage at byte {byte:,} of {shard.size:,}: {reason}",
        "Copy or write it again, or take it out of the folder.",
    )


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"a shard that can be read at {path}",
        error.strerror or str(error),
        "Correct `data.root`, or the rights to read the file.",
    )
