"""Images in tar files, read in place."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import os
import re
import stat
import tarfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

import torch

from devices.cache_dir import default_cache_dir
from devices.errors import FileError
from devices.files import replacing
from edgesearch.data.contents import Header, readable_name, tally
from edgesearch.data.decode import decode_image, header_of
from edgesearch.data.file_kinds import NO_IMAGE, why_no_image
from edgesearch.data.find_files import find_files, natural
from edgesearch.data.folder import check_not_output, shown
from edgesearch.data.image_set import ImageSet
from edgesearch.data.layout import (
    TEST,
    TRAIN,
    VALID,
    Layout,
    classes_of,
    split_of_folder,
    split_within,
    understand,
)
from edgesearch.data.settings import DataSettings
from edgesearch.data.splits import ImageSplits, divide
from edgesearch.errors import DataError

OPEN_SHARDS = 128
"""Shards that a process keeps open."""
INDEX_FORMAT = 2
"""Counts up whenever an index would hold something else."""
MOST_OF_A_LABEL = 1 << 24
"""Bytes that are read of a member beside an image."""
LONGEST_LABEL = 100
"""Characters of a text beside an image that may be the name of its class."""
COMPRESSED = "packed, which cannot be read in place: unpack to .tar"

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_PACKED = re.compile(r"(\.tar\.\w+|\.(tgz|tbz2?|txz|tzst|zip))$", re.I)


def open_shards(
    settings: DataSettings, root: Path, channels: int, is_output: Callable[[Path], bool]
) -> ImageSplits:
    """Open the images in shards; see `index_shard` for their format.

    The root is a folder with `.tar` files at any depth, one such file, or a pattern with `*`, `?`,
    `{000..146}` or `{train,val}`. Shards with `train` in their name (or that of a folder below the
    root) form the training split, those with `val`, `test` or another usual name a test split.
    Without both, folders inside of the shards are splits and classes as in a folder of images.
    Labels beside the images take precedence over such folders.

    Raises:
        DataError: There are no shards or no images in them, or a shard is missing or damaged.
    """
    shards, left_out = find_shards(root, is_output)
    origin = root if root.is_dir() else Path(os.path.commonpath([each.parent for each in shards]))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        indices = list(pool.map(index_shard, shards))
    found = [entry for index in indices for entry in index.images]
    for shard, index in zip(shards, indices, strict=True):
        where = readable_name(shard.relative_to(origin).as_posix())
        left_out += [(reason, f"{where}/{readable_name(name)}") for reason, name in index.left_out]
    if not found:
        raise DataError(
            f"images in the {len(shards)} shard(s) in {origin.absolute()}",
            "no member that is an image"
            + "".join(f"; {each}" for each in map(str, tally(left_out))),
            "Put images there, or correct `data.root`.",
        )
    items = tuple(image for image, _ in found)
    names = [readable_name(image.name_below(origin)) for image in items]
    layout = _layout(items, origin)
    labels = [label for _, label in found]
    texts = [text for index in indices for text in index.texts]
    if labels.count(None) == len(labels):
        if len(set(texts)) <= max(2, len(texts) // 2):
            labels = texts
        else:
            captioned = next(name for name, text in zip(names, texts, strict=True) if text)
            left_out.append(("with captions that are no class names", captioned))
    if labels.count(None) < len(labels):
        for part in layout.splits.values():
            part.update({index: labels[index] for index in part})
    return divide(ImageSet(items, channels, origin), names, layout, left_out)


def _layout(items: Sequence[ShardImage], origin: Path) -> Layout:
    """Splits by the names of shards if these tell them, else by folders inside of the shards."""
    members = [tuple(p for p in PurePosixPath(each.name).parts if p != "/") for each in items]
    by_shard = {each.shard: _split_of(each.shard.path.relative_to(origin)) for each in items}
    if TRAIN not in by_shard.values() or not {TEST, VALID} & set(by_shard.values()):
        return understand(members, (), str(origin.absolute()))
    kinds = [by_shard[each.shard] for each in items]
    inside = [  # `train.tar` may hold a folder `train`
        tuple(part for part in parts if kind is None or split_of_folder(part) != kind)
        for parts, kind in zip(members, kinds, strict=True)
    ]
    layout = Layout({}, {kind: f"shards named {kind}" for kind in (TRAIN, TEST, VALID)})
    for index, (kind, name) in enumerate(zip(kinds, classes_of(inside), strict=True)):
        if kind is None:
            layout.unused.append(index)
        else:
            layout.splits.setdefault(kind, {})[index] = name
    return layout


def find_shards(
    root: Path, is_output: Callable[[Path], bool]
) -> tuple[list[Path], list[tuple[str, str]]]:
    """The shards of a folder, file or pattern in natural order, and what is left out there.

    Raises:
        DataError: There are none.
    """
    left_out: list[tuple[str, str]] = []
    if root.is_dir():
        check_not_output(root, is_output)
        files = find_files(root, _why_no_shard, is_output)
        found = [file.path for file in files.files]
        left_out = [(reason, shown(parts)) for reason, parts in files.left_out]
    else:
        found = []
        for pattern in _expanded(str(root)):
            is_name = not glob.has_magic(pattern) or Path(pattern).exists()
            found += map(Path, [pattern] if is_name else glob.glob(pattern, recursive=True))
        found = sorted(set(found), key=lambda path: natural(path.parts))
    if not found:
        other = "no file that ends in .tar" if root.is_dir() else "no file of that name"
        raise DataError(
            f"shards (.tar, not compressed) at {root.absolute()}",
            other + "".join(f"; {each}" for each in map(str, tally(left_out))),
            "Correct `data.root`, or unpack the shards.",
        )
    return found, left_out


def _why_no_shard(name: str, opened: Callable[[], BinaryIO]) -> str | None:
    if name.lower().endswith(".tar"):
        return None
    return COMPRESSED if _PACKED.search(name) else NO_IMAGE


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


def _split_of(shard: Path) -> str | None:
    """Split in the shard's own name, or else in that of the nearest folder."""
    return next(filter(None, map(split_within, reversed(shard.parts))), None)


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

    def header(self) -> Header | None:
        """See `StoredImage`."""
        return header_of(io.BytesIO(self.read()))

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


class ShardIndex(NamedTuple):
    """The content of a shard.

    Attributes:
        images: The images with their labels.
        texts: One-line texts beside them, which are class names or captions.
        left_out: Reason and name of members that are not used.
    """

    images: list[tuple[ShardImage, str | None]]
    texts: list[str | None]
    left_out: list[tuple[str, str]]


def index_shard(path: Path) -> ShardIndex:
    """The images of an uncompressed tar file in its order, with their labels if any.

    An image is any member that `why_no_image` takes for one. Members with the same key belong
    together, as in WebDataset: the label of `0001.jpg` is the whole number or the name in
    `0001.cls`, or under `label` or `cls` in `0001.json`; a line in `0001.txt` may be one. The index
    is cached by path, size and time of change of the shard.

    Raises:
        DataError: The shard cannot be read, is damaged or truncated (reports the byte), or a label
            is neither a whole number nor a name.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if stat.S_ISFIFO(status.st_mode):
        raise _unreadable(path, OSError(0, "a pipe"))
    shard = Shard(path, status.st_size, status.st_mtime_ns)
    key = os.fsencode(f"{INDEX_FORMAT} {path.absolute()} {shard.size} {shard.mtime_ns}")
    name = f"{hashlib.sha256(key).hexdigest()[:32]}.json"
    try:
        rows: _Rows = json.loads((default_cache_dir() / "shards" / name).read_text("utf-8"))
    except (OSError, ValueError, FileError):
        rows = _rows(shard)  # an index that cannot be cached is computed again next time
        with (
            contextlib.suppress(FileError),
            replacing(default_cache_dir() / "shards" / name, shared=True) as partial,
        ):
            partial.write_text(json.dumps(rows), "utf-8")
    return ShardIndex(
        [(ShardImage(shard, name, start, size), label) for name, start, size, label, _ in rows[0]],
        [text for *_, text in rows[0]],
        [(reason, name) for reason, name in rows[1]],
    )


_Rows = tuple[list[list[Any]], list[list[str]]]
"""Name, offset, size, label and text of each image; reason and name of each member left out."""


def _rows(shard: Shard) -> _Rows:
    """The index of a shard; reports the byte of damage.

    Concatenated archives (`cat`, `tar --concatenate`) have one end each and may repeat member
    names; all of them are read.
    """
    rows: _Rows = ([], [])
    start: int | None = 0
    try:
        with shard.path.open("rb") as file:
            while start is not None:
                file.seek(start)
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    _index(archive, shard, rows)
                    start = _after_the_end(shard, file, archive.offset)
    except tarfile.ReadError as error:
        if "end of data" in str(error):
            raise _damaged(shard, shard.size, "a member is cut off") from error
        raise _damaged(shard, 0, f"no uncompressed tar file ({error})") from error
    except OSError as error:
        raise _unreadable(shard.path, error) from error
    return rows


def _index(archive: tarfile.TarFile, shard: Shard, rows: _Rows) -> None:
    """Add the members of one archive to the rows."""
    images: list[tarfile.TarInfo] = []
    labels: dict[str, str] = {}
    texts: dict[str, str] = {}
    for member in archive:
        name = PurePosixPath(member.name)
        ending = name.suffix.lower()
        if member.isdir() or any(part[0] == "." for part in name.parts):
            continue
        reason = _why_not(archive, member)
        if ending in (".cls", ".json", ".txt") and member.isreg():
            content = cast(BinaryIO, archive.extractfile(member)).read(MOST_OF_A_LABEL)
            key = str(name.with_suffix(""))
            if ending == ".txt":
                texts[key] = _text(content)
            elif label := _label(f"{shard.path}: {member.name}", ending, content):
                labels[key] = label
        elif reason is None:
            images.append(member)
        else:
            rows[1].append([reason, member.name])
    for each in images:
        own = [_of_key(each.name, found) for found in (labels, texts)]
        rows[0].append([each.name, each.offset_data, each.size, *own])


def _why_not(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    if not member.isreg() or member.issparse():
        return "that is a link or a special file"
    reason = why_no_image(
        PurePosixPath(member.name).name, lambda: cast(BinaryIO, archive.extractfile(member))
    )
    return "empty" if reason is None and member.size == 0 else reason


def _of_key(name: str, found: Mapping[str, str]) -> str | None:
    """By the name without extension, or by WebDataset's key: up to the first dot."""
    path = PurePosixPath(name)
    key = path.with_name(path.name.split(".")[0])
    return found.get(str(path.with_suffix("")), found.get(str(key))) or None


def _text(content: bytes) -> str:
    """The text of a member; empty if it is not a single short line."""
    text = content.decode("utf-8-sig", "replace").strip()
    return text if text.isprintable() and len(text) <= LONGEST_LABEL else ""


def _label(where: str, ending: str, content: bytes) -> str | None:
    try:
        label: Any = content.decode("utf-8-sig").strip()
        if ending == ".json":
            values = json.loads(label)
            label = next((values[key] for key in ("label", "cls") if key in values), None)
        if label is None or type(label) is int:
            return None if label is None else str(label)
        if isinstance(label, str) and 0 < len(label) <= LONGEST_LABEL and label.isprintable():
            return label
        found = repr(label)
    except (ValueError, TypeError):
        found = repr(content[:40])
    raise DataError(
        f"a whole number or a name as the label in {where}",
        found,
        "Correct the label, or leave out this member.",
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
