"""Images in tar files, read in place."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import os
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch

from devices.cache_dir import default_cache_dir
from devices.errors import FileError
from devices.files import replacing
from edgesearch.data.decode import EXTENSIONS, decode_image
from edgesearch.data.folder import files_below, natural
from edgesearch.data.image_set import ImageSet
from edgesearch.data.settings import DataSettings
from edgesearch.data.splits import TESTS, TRAIN, ImageSplits, name_of_test_split, with_classes_of
from edgesearch.errors import DataError

OPEN_SHARDS = 128
"""Shards that a process keeps open."""

_SPLIT = re.compile(
    rf"(?<![a-z])({'|'.join([TRAIN, *sorted(TESTS, reverse=True)])})(?![a-z])", re.I
)
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def open_shards(settings: DataSettings, root: Path, channels: int) -> ImageSplits:
    """Open the images in shards; see `index_shard` for their format.

    Shards with `train` in their name (or that of a folder below the root) form the training split,
    those with `val`, `validation` or `test` the test split. Without both, all shards are one set.
    The root is a folder with `.tar` files at any depth, one such file, or a pattern with `*`, `?`,
    `{000..146}` or `{train,val}`.

    Raises:
        DataError: There are no shards or no images in them, a shard is missing or damaged, or only
            some images have labels.
    """
    shards = find_shards(root)
    origin = root if root.is_dir() else Path(os.path.commonpath([each.parent for each in shards]))
    splits: dict[str, list[Path]] = {}
    for shard in shards:
        splits.setdefault(_split_of(shard.relative_to(origin)), []).append(shard)
    test = name_of_test_split(splits)
    if test is None:
        return ImageSplits(_image_set(shards, origin, channels))
    return with_classes_of(*(_image_set(splits[name], origin, channels) for name in (TRAIN, test)))


def find_shards(root: Path) -> list[Path]:
    """The shards of a folder, file or pattern in natural order; DataError if there are none."""
    if root.is_dir():
        found = files_below(root, (".tar",))
    else:
        found = []
        for pattern in _expanded(str(root)):
            is_name = not glob.has_magic(pattern) or Path(pattern).exists()
            found += map(Path, [pattern] if is_name else glob.glob(pattern, recursive=True))
    if not found:
        other = "no file that ends in .tar" if root.is_dir() else "no file of that name"
        raise DataError(
            f"shards (.tar, not compressed) at {root.absolute()}", other, "Correct `data.root`."
        )
    return sorted(set(found), key=natural)


def _expanded(pattern: str) -> list[str]:
    """Brace expansion, as in a shell."""
    braces = _BRACES.search(pattern)
    if braces is None:
        return [pattern]
    first, last, words = braces.groups()
    if words is None:
        numbers = range(int(first), int(last) + 1)
        choices = [str(number).zfill(len(first)) for number in numbers]
    else:
        choices = words.split(",")
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [whole for choice in choices for whole in _expanded(f"{before}{choice}{after}")]


def _split_of(shard: Path) -> str:
    """Split in the shard's own name, or else in that of the nearest folder."""
    names = (_SPLIT.search(part) for part in reversed(shard.parts))
    return next((name.group(1).lower() for name in names if name), "")


def _image_set(shards: list[Path], origin: Path, channels: int) -> ImageSet:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = [entry for index in pool.map(index_shard, shards) for entry in index]
    if not found:
        raise DataError(
            f"images in the {len(shards)} shard(s) in {origin.absolute()}",
            "no member with an image extension",
            "Put images there, or correct `data.root`.",
        )
    items = tuple(image for image, _ in found)
    labels = [label for _, label in found if label is not None]
    if not labels:
        return ImageSet(items, channels, origin)
    if len(labels) < len(items):
        without = next(image for image, label in found if label is None)
        raise DataError(
            f"a label for each image of the shards in {origin.absolute()}, or for none",
            f"{len(items) - len(labels)} of {len(items)} without, such as {without}",
            "Add their .cls members, or leave out all of them.",
        )
    classes, indices = torch.tensor(labels).unique(return_inverse=True)
    return ImageSet(items, channels, origin, indices, tuple(map(str, classes.tolist())))


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file with its size in bytes and its time of change when it was indexed."""

    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class ShardImage:
    """An image file: the content of a member, `size` bytes from byte `offset` of the shard."""

    shard: Shard
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard.path}: {self.name} (from byte {self.offset} on)"

    def name_below(self, origin: Path) -> str:
        """See `StoredImage`."""
        return f"{self.shard.path.relative_to(origin).as_posix()}/{self.name}"

    def load(self, channels: int) -> torch.Tensor:
        """See `StoredImage`."""
        return decode_image(io.BytesIO(self.read()), channels, str(self))

    def read(self) -> bytes:
        """The content, by one positional read, safe in any thread or process."""
        handle = _opened(self.shard)  # kept alive: concurrent threads may each open the shard
        content = os.pread(handle.number, self.size, self.offset)
        if len(content) < self.size:
            raise _changed(self.shard, f"it ends at byte {self.offset + len(content)}")
        return content


class _Handle:
    """A file descriptor, closed with its last reference."""

    number = -1

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


@lru_cache(maxsize=OPEN_SHARDS)
def _opened(shard: Shard) -> _Handle:
    """The open shard; each process opens it on first use."""
    try:
        handle = _Handle(shard.path)
    except OSError as error:
        raise _changed(shard, error.strerror or str(error)) from error
    status = os.fstat(handle.number)
    if (status.st_size, status.st_mtime_ns) != (shard.size, shard.mtime_ns):
        raise _changed(shard, "it has been written to")
    return handle


def index_shard(path: Path) -> list[tuple[ShardImage, int | None]]:
    """The images of an uncompressed tar file in its order, with their labels if any.

    An image is any member with an image extension. Members with the same key belong together, as in
    WebDataset: the label of `0001.jpg` is the integer in `0001.cls`, or under `label` or `cls` in
    `0001.json`. The index is cached by path, size and time of change of the shard.

    Raises:
        DataError: The shard cannot be read, is damaged or truncated (reports the byte), or a label
            is not an integer.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    shard = Shard(path, status.st_size, status.st_mtime_ns)
    key = os.fsencode(f"{path.absolute()} {shard.size} {shard.mtime_ns}")
    kept = default_cache_dir() / "shards" / f"{hashlib.sha256(key).hexdigest()[:32]}.json"
    try:
        rows: list[list[Any]] = json.loads(kept.read_text("utf-8"))
    except (OSError, ValueError):
        rows = _rows(shard)  # an index that cannot be cached is computed again next time
        with contextlib.suppress(FileError), replacing(kept, shared=True) as partial:
            partial.write_text(json.dumps(rows), "utf-8")
    return [(ShardImage(shard, name, offset, size), label) for name, offset, size, label in rows]


def _rows(shard: Shard) -> list[list[Any]]:
    """Name, offset, size and label of each image; reports the byte of damage.

    Concatenated archives (`cat`, `tar --concatenate`) have one end each and may repeat member
    names; all of them are read.
    """
    rows: list[list[Any]] = []
    start: int | None = 0
    try:
        with shard.path.open("rb") as file:
            while start is not None:
                file.seek(start)
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    rows += _rows_of(archive, shard)
                    start = _after_the_end(shard, file, archive.offset)
    except tarfile.ReadError as error:
        if "end of data" in str(error):
            raise _damaged(shard, shard.size, "a member is cut off") from error
        raise _damaged(shard, 0, f"no uncompressed tar file ({error})") from error
    except OSError as error:
        raise _unreadable(shard.path, error) from error
    return rows


def _rows_of(archive: tarfile.TarFile, shard: Shard) -> list[list[Any]]:
    images: list[tarfile.TarInfo] = []
    labels: dict[str, int] = {}
    for member in archive:
        name = PurePosixPath(member.name)
        ending = name.suffix.lower()
        if name.name.startswith(".") or not member.isreg() or member.issparse():
            continue
        if ending in EXTENSIONS:
            images.append(member)
        elif ending in (".cls", ".json"):
            content = archive.extractfile(member)
            assert content is not None
            label = _label(f"{shard.path}: {member.name}", ending, content.read())
            if label is not None:
                labels[str(name.with_suffix(""))] = label
    return [[m.name, m.offset_data, m.size, _label_of(m.name, labels)] for m in images]


def _label_of(name: str, labels: dict[str, int]) -> int | None:
    """By the name without extension, or by WebDataset's key: up to the first dot."""
    path = PurePosixPath(name)
    key = path.with_name(path.name.split(".")[0])
    return labels.get(str(path.with_suffix("")), labels.get(str(key)))


def _label(where: str, ending: str, content: bytes) -> int | None:
    try:
        text = content.decode("utf-8")
        values = {"cls": int(text)} if ending == ".cls" else json.loads(text)
        label = next((values[key] for key in ("label", "cls") if key in values), None)
        if label is None or (type(label) is int and abs(label) < 1 << 63):
            return label
        found = repr(label)
    except (ValueError, TypeError):
        found = repr(content[:40])
    raise DataError(
        f"a whole number as the label in {where}",
        found,
        "Number the classes, or leave out this member.",
    )


def _after_the_end(shard: Shard, file: BinaryIO, end: int) -> int | None:
    """Start of the next concatenated archive, None if there is none.

    tarfile stops at a damaged header as at the end of an archive, a block of zeros.
    """
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise _damaged(shard, shard.size, "the end of the archive is missing")
    if any(block):
        raise _damaged(shard, end, "no member header")
    place = end + len(block)
    while blocks := file.read(2048 * tarfile.BLOCKSIZE):
        zeros = len(blocks) - len(blocks.lstrip(b"\0"))
        if zeros < len(blocks):
            return place + zeros - zeros % tarfile.BLOCKSIZE
        place += len(blocks)
    return None


def _changed(shard: Shard, found: str) -> DataError:
    return DataError(
        f"the shard {shard.path} as it was when its index was made",
        found,
        "Do not change the shards while edgesearch runs.",
    )


def _damaged(shard: Shard, byte: int, reason: str) -> DataError:
    return DataError(
        f"an intact shard at {shard.path}",
        f"damage at byte {byte:,} of {shard.size:,}: {reason}",
        "Copy or write it again, or take it out of the folder.",
    )


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"a shard that can be read at {path}",
        error.strerror or str(error),
        "Correct `data.root`, or the file's permissions.",
    )
