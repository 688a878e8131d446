"""Splits and classes, as the names of folders tell them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edgesearch.data.contents import readable_name
from edgesearch.errors import DataError

Parts = tuple[str, ...]
"""The names of a path below a root; that of a folder ends in ""."""

TRAIN, VALID, TEST, UNLABELLED = "train", "valid", "test", "unlabelled"
_WORDS = (
    rf"(?:(?P<{TRAIN}>train|training)|(?P<{TEST}>test|testing)"
    rf"|(?P<{VALID}>val|valid|validation|eval|evaluation|dev)"
    rf"|(?P<{UNLABELLED}>unlabell?ed))"
)
_FOLDER = re.compile(rf"{_WORDS}(?:[ _-]?(?:set|data|images?|imgs|split))?[ _-]?(?:\d{{4}})?", re.I)
_WITHIN = re.compile(rf"(?<![a-z]){_WORDS}(?:_?set)?(?![a-z])", re.I)


def split_of_folder(name: str) -> str | None:
    """The split that a folder holds by its name, in any case; None if it is no usual name."""
    match = _FOLDER.fullmatch(name)
    return match.lastgroup if match else None


def split_within(name: str) -> str | None:
    """The split that a name contains as a word, as `imagenet-train-0000.tar` does."""
    match = _WITHIN.search(name)
    return match.lastgroup if match else None


@dataclass
class Layout:
    """How images are divided.

    Attributes:
        splits: For TRAIN, TEST and VALID the class folder of each image by its index, None for an
            image that lies in none.
        names: Places of these splits, as "test/"; empty if they are no folders.
        unused: Indices of images in no split.
        unread: Paths of splits and class folders without any image that can be read.
    """

    splits: dict[str, dict[int, str | None]]
    names: dict[str, str] = field(default_factory=dict)
    unused: list[int] = field(default_factory=list)
    unread: list[Parts] = field(default_factory=list)


Place = Callable[[Parts], tuple[str | None, str | None]]
"""The split and the class folder of a path, if any."""


def understand(paths: Sequence[Parts], unread: Sequence[Parts], where: str) -> Layout:
    """Divide images by the names of their folders.

    - A single folder with nothing beside it is looked into.
    - `train` beside a validation or test folder: these are the splits. `train` alone, too.
    - Two or more folders that each hold `train` and a test folder: the splits of classes.
    - Otherwise folders are classes; images beside them have none.
    - A folder `unlabelled` holds training images without a class.

    Args:
        paths: The path of each image.
        unread: Paths of what could not be read, and of empty folders with the name of a split.
        where: The root, in messages.

    Raises:
        DataError: There is not exactly one training folder beside a test folder.
    """
    everything = [*paths, *unread]
    depth = _depth_of_wrappers(everything)
    tops = dict.fromkeys(path[depth] for path in everything if len(path) > depth + 1)
    kinds = {top: split_of_folder(top) for top in tops}
    named = {kind: [top for top in tops if kinds[top] == kind] for kind in (TRAIN, TEST, VALID)}
    names = {}
    only_train = set(kinds.values()) - {UNLABELLED} == {TRAIN}
    if named[TRAIN] and (named[TEST] or named[VALID] or only_train):
        place = _place_by_split(depth, kinds)
        for kind, folders in named.items():
            if len(folders) > 1:
                raise _unclear(f"one folder of {kind} images", folders, where)
            if folders:
                names[kind] = f"{readable_name(folders[0])}/"
    elif len(tops) > 1 and _splits_within(everything, depth, tops):
        place = _place_by_class(depth)
        names = {kind: f"{kind}/ of each class" for kind in named}
    elif len(tops) > 1 and all(kinds.values()):
        raise _unclear("a folder train/ beside the test images", list(tops), where)
    else:
        place = _place_by_folder(depth)

    layout = Layout({}, names)
    for index, path in enumerate(paths):
        split, class_folder = place(path)
        if split is None:
            layout.unused.append(index)
        else:
            layout.splits.setdefault(split, {})[index] = class_folder
    if TRAIN not in layout.splits:
        raise _unclear("training images that can be read", named[TRAIN], where)
    lost = {place(path): path for path in reversed(unread)}
    for (split, class_folder), path in lost.items():
        images = layout.splits.get(split or TRAIN, {}).values()
        folder = class_folder is not None and class_folder not in images and any(images)
        if split is not None and (folder or not images):
            layout.unread.append(path)
    return layout


def classes_of(paths: Sequence[Parts]) -> list[str | None]:
    """The class folder of each image whose split is known, None for those in none."""
    depth = _depth_of_wrappers(paths)
    return [path[depth] if len(path) > depth + 1 else None for path in paths]


def _depth_of_wrappers(paths: Sequence[Parts]) -> int:
    """The number of folders that hold everything, one in the other; `train` is none of them."""
    for depth in range(min(map(len, paths), default=1) - 1):
        names = {path[depth] for path in paths}
        if len(names) > 1 or split_of_folder(names.pop()) == TRAIN:
            return depth
    return max(0, min(map(len, paths), default=1) - 1)


def _place_by_split(depth: int, kinds: Mapping[str, str | None]) -> Place:
    def place(path: Parts) -> tuple[str | None, str | None]:
        kind = kinds.get(path[depth])
        if kind == UNLABELLED:
            return TRAIN, None
        return kind, path[depth + 1] if len(path) > depth + 2 else None

    return place


def _place_by_class(depth: int) -> Place:
    return lambda path: (
        split_of_folder(path[depth + 1]) if len(path) > depth + 2 else None,
        path[depth],
    )


def _place_by_folder(depth: int) -> Place:
    def place(path: Parts) -> tuple[str | None, str | None]:
        has_class = len(path) > depth + 1 and split_of_folder(path[depth]) != UNLABELLED
        return TRAIN, path[depth] if has_class else None

    return place


def _splits_within(paths: Sequence[Parts], depth: int, tops: Iterable[str]) -> bool:
    """Whether each folder holds one of training images and one of others."""
    found: dict[str, set[str | None]] = {top: set() for top in tops}
    for path in paths:
        if len(path) > depth + 2:
            found[path[depth]].add(split_of_folder(path[depth + 1]))
    return all(TRAIN in kinds and kinds & {TEST, VALID} for kinds in found.values())


def _unclear(required: str, folders: Sequence[str], where: str) -> DataError:
    return DataError(
        f"{required} in {where}",
        ", ".join(f"{readable_name(folder)}/" for folder in folders) or "none",
        "Name the folders train/ and test/, or give the folder of the training images as "
        "data.root.",
    )
