"""Images in a folder of files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from edgesearch.data.contents import Header, readable_name
from edgesearch.data.decode import decode_image, header_of
from edgesearch.data.file_kinds import common_endings, why_no_image
from edgesearch.data.find_files import Found, find_files
from edgesearch.data.image_set import ImageSet
from edgesearch.data.layout import Layout, Parts, split_of_folder, understand
from edgesearch.data.settings import DataSettings
from edgesearch.data.splits import ImageSplits, divide
from edgesearch.errors import DataError

NO_IMAGES = "without any image"


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file, with its size in bytes when it was found."""

    path: Path
    size: int

    @staticmethod
    def at(path: Path) -> ImageFile:
        """The file at a path; of size 0 if it is missing, which makes it unreadable."""
        return ImageFile(path, path.stat().st_size if path.exists() else 0)

    def name_below(self, origin: Path) -> str:
        """See `StoredImage`."""
        return self.path.relative_to(origin).as_posix()

    def load(self, channels: int) -> torch.Tensor:
        """See `StoredImage`."""
        return decode_image(self.path, channels)

    def header(self) -> Header | None:
        """See `StoredImage`."""
        return header_of(self.path)


def open_folder(
    settings: DataSettings, root: Path, channels: int, is_output: Callable[[Path], bool]
) -> ImageSplits:
    """Find the images below a folder, and the splits and classes that its subfolders define.

    See `find_files` for what is found, and `understand` for splits and classes.

    Raises:
        DataError: The folder is missing, or has no images; a split or class folder has none that
            can be read.
    """
    check_folder(root, is_output)
    found = find_files(root, why_no_image, is_output)
    if not found.files:
        reason, parts = next(iter(found.left_out), ("no file at all", ()))
        raise DataError(
            f"images in {root.absolute()}",
            f"none among {len(found.left_out)} files and folders"
            + (f"; the first: {shown(parts)} ({reason})" if parts else ""),
            f"Put images there ({', '.join(common_endings())} …), or correct `data.root`.",
        )
    paths = [file.parts for file in found.files]
    with_images = {parts[:depth] for parts in paths for depth in range(len(parts))}
    empty = sorted(parts for parts in found.folders - with_images if parts[:-1] in with_images)
    splits = [(*parts, "") for parts in empty if split_of_folder(parts[-1])]
    layout = understand(paths, [*found.unread, *splits], str(root.absolute()))
    if layout.unread and not settings.allow_missing_classes:
        raise _class_missing(root, layout, found)
    left_out = [(reason, shown(parts)) for reason, parts in found.left_out]
    told = {parts[:depth] for _, parts in found.left_out for depth in range(len(parts))}
    left_out += [(NO_IMAGES, shown((*parts, ""))) for parts in empty if parts not in told]
    items = tuple(ImageFile(file.path, file.size) for file in found.files)
    return divide(
        ImageSet(items, channels, root), [shown(each) for each in paths], layout, left_out
    )


def check_folder(root: Path, is_output: Callable[[Path], bool]) -> None:
    """Refuse a root that is no folder, or one that edgesearch itself writes to."""
    if not root.is_dir():
        raise DataError(
            f"a folder of images at {root.absolute()}",
            "a file" if root.exists() else "nothing of that name",
            "Correct `data.root`.",
        )
    check_not_output(root, is_output)


def check_not_output(root: Path, is_output: Callable[[Path], bool]) -> None:
    """Refuse a root that edgesearch itself writes to, and that of all files of the machine."""
    if root.resolve() == Path("/"):
        raise DataError(
            f"the folder of the images, not of all files of this machine ({root})",
            "the root of the file system",
            "Correct `data.root`.",
        )
    if is_output(root):
        raise DataError(
            f"images in a folder that edgesearch does not write to, not {root.absolute()}",
            "the output folder of a run",
            "Choose another output_dir, such as output_dir=runs/1, or another data.root.",
        )


def shown(parts: Parts) -> str:
    """A path in one line; that of a folder ends in a slash."""
    return readable_name("/".join(parts))


def _class_missing(root: Path, layout: Layout, found: Found) -> DataError:
    reasons = dict((parts, reason) for reason, parts in found.left_out)
    named = [f"{shown(each)} ({reasons.get(each, 'empty')})" for each in layout.unread]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return DataError(
        f"an image that can be read in each class folder and split of {root.absolute()}",
        f"none in {len(named)} of them, because of {', '.join(named[:3])}{more}",
        "Mend or remove these, or set data.allow_missing_classes=true to go on without them.",
    )
