"""Image sets with optional labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import torch

from edgesearch.data.contents import Header
from edgesearch.data.decode import DAMAGED, UnreadableImage
from edgesearch.data.preprocess import Preprocess
from edgesearch.errors import DataError

STACKED_BYTES = 4 << 30
CHUNK = 256


class StoredImage(Protocol):
    """An image in a file that its source can read."""

    @property
    def size(self) -> int:
        """Encoded size in bytes, when it was found."""

    def name_below(self, origin: Path) -> str:
        """Its path relative to the folder of the set."""

    def load(self, channels: int) -> torch.Tensor:
        """Pixels (channels, H, W) uint8; DataError if unreadable."""

    def header(self) -> Header | None:
        """Size and colour without decoding the pixels; None if unreadable."""


class Annotation(Protocol):
    """What is known of the parts of an image.

    Attributes:
        kind: "boxes" or "maps".
    """

    kind: ClassVar[str]

    def digest(self) -> bytes:
        """Bytes that identify it."""


@dataclass(frozen=True)
class PreprocessedImages:
    """Images (N, C, R, R) uint8, not normalised, labels (N,) int64, and reasons by unread image."""

    images: torch.Tensor
    labels: torch.Tensor | None
    unread: dict[str, str]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A sequence of images with optional labels.

    Attributes:
        items: Each image as pixels (C, H, W) uint8, or as an object of its source.
        channels: Channels to load, 1 or 3.
        origin: Folder of the images, or a display name.
        labels: (N,) int64 indices into `class_names`, if any; -1 for an image without a class.
        class_names: Empty without labels.
        targets: The boxes or the label map of each image, if any.
    """

    items: tuple[torch.Tensor | StoredImage, ...]
    channels: int
    origin: Path
    labels: torch.Tensor | None = None
    class_names: tuple[str, ...] = ()
    targets: tuple[Annotation, ...] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def load(self, index: int) -> torch.Tensor:
        """Pixels (C, H, W) uint8 of an image; DataError if unreadable."""
        item = self.items[index]
        return item if isinstance(item, torch.Tensor) else item.load(self.channels)

    def header(self, index: int) -> Header | None:
        """Size and colour of an image; None if unreadable."""
        item = self.items[index]
        if isinstance(item, torch.Tensor):
            return Header(item.shape[2], item.shape[1], None)
        return item.header()

    def name(self, index: int) -> str:
        """Name of an image below the origin; of pixels in memory their index."""
        item = self.items[index]
        return str(index) if isinstance(item, torch.Tensor) else item.name_below(self.origin)

    def target(self, index: int) -> int | Annotation | None:
        """The boxes or the label map of an image, else its label; None without labels."""
        if self.targets is not None:
            return self.targets[index]
        return None if self.labels is None else int(self.labels[index])

    @property
    def annotations_kind(self) -> str | None:
        """The kind of the annotations, such as "boxes"; None without any."""
        return self.targets[0].kind if self.targets else None

    @property
    def without_class(self) -> list[int]:
        """Indices of images without a class beside others with one."""
        labels = torch.empty(0) if self.labels is None else self.labels
        return (labels < 0).nonzero().flatten().tolist()

    def with_class(self) -> ImageSet:
        """The images that have a class."""
        if self.labels is None or not self.without_class:
            return self
        return self.subset((self.labels >= 0).nonzero().flatten().tolist())

    def subset(self, indices: Sequence[int]) -> ImageSet:
        """The images at these indices, in this order."""
        labels = None if self.labels is None else self.labels[torch.tensor(indices).long()]
        targets = None if self.targets is None else tuple(self.targets[i] for i in indices)
        items = tuple(self.items[i] for i in indices)
        return replace(self, items=items, labels=labels, targets=targets)

    def digest(self) -> str:
        """64 hexadecimal digits that identify the images.

        Files count by relative name and size, so that large folders take seconds; pixels in memory
        count by content.
        """
        total = hashlib.sha256(f"{self.channels} {self.class_names}".encode())
        for item in self.items:
            if isinstance(item, torch.Tensor):
                total.update(f"{tuple(item.shape)}".encode() + item.numpy().tobytes())
                continue
            name = item.name_below(self.origin)
            total.update(os.fsencode(name) + f" {item.size}\n".encode())
        if self.labels is not None:
            total.update(self.labels.numpy().tobytes())
        for target in self.targets or ():
            total.update(target.digest())
        return total.hexdigest()

    def without_unreadable(self, max_bytes: int = 1 << 30) -> tuple[ImageSet, dict[str, str]]:
        """Decode all images once; returns the readable ones, and reasons by name of the others.

        Decoded images up to `max_bytes` in total are kept in memory.

        Raises:
            DataError: No image can be read.
        """
        readable: list[int] = []
        pixels: list[torch.Tensor] = []
        room, unread = max_bytes, dict[str, str]()
        for index, image in self._readable(range(len(self)), lambda image: image, unread):
            readable.append(index)
            room -= image.nbytes
            if room >= 0:
                pixels.append(image)
            else:
                pixels.clear()
        chosen = self.subset(readable)
        if room >= 0:
            chosen = replace(chosen, items=tuple(pixels))
        return chosen, unread

    def preprocessed(
        self, preprocess: Preprocess, indices: Sequence[int] | None = None
    ) -> PreprocessedImages:
        """Preprocess the images at `indices` (all if None); unreadable ones are skipped.

        Raises:
            DataError: No image can be read.
        """
        wanted = range(len(self)) if indices is None else indices
        unread: dict[str, str] = {}
        read, images = zip(*self._readable(wanted, preprocess, unread), strict=True)
        return PreprocessedImages(torch.stack(images), self.subset(read).labels, unread)

    def stack(self) -> torch.Tensor:
        """All images as one tensor (N, C, H, W) uint8.

        Raises:
            DataError: Shapes differ, the total exceeds 4 GiB, or an image cannot be read.
        """
        shape = self.load(0).shape
        size = len(self) * shape.numel()
        if size > STACKED_BYTES:
            raise _no_stack(f"{size / 2**30:.1f} GiB in {len(self)} images")
        stacked = torch.empty((len(self), *shape), dtype=torch.uint8)
        for index, image in self._decoded(range(len(self)), lambda image: image):
            if isinstance(image, DataError):
                raise image
            if image.shape != shape:
                first, other = (f"{each[-1]} × {each[-2]}" for each in (shape, image.shape))
                raise _no_stack(f"{first} and {other} pixels among {len(self)} images")
            stacked[index] = image
        return stacked

    def _readable(
        self,
        indices: Sequence[int],
        transform: Callable[[torch.Tensor], torch.Tensor],
        unread: dict[str, str],
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """The readable images, transformed, with their indices; notes reasons of others by name."""
        any_readable, reason = False, ""
        for index, image in self._decoded(indices, transform):
            if isinstance(image, DataError):
                reason = reason or f"; the first: {image.found}"
                why = image.reason if isinstance(image, UnreadableImage) else DAMAGED
                unread[self.name(index)] = why
            else:
                any_readable = True
                yield index, image
        if not any_readable:
            raise DataError(
                f"at least one image in {self.origin} that can be read",
                f"none of {len(indices)}{reason}",
                "Check the files of this folder.",
            )

    def _decoded(
        self, indices: Sequence[int], transform: Callable[[torch.Tensor], torch.Tensor]
    ) -> Iterator[tuple[int, torch.Tensor | DataError]]:
        """Each image, transformed, or its error; decoded by several threads."""

        def attempt(index: int) -> torch.Tensor | DataError:
            try:
                return transform(self.load(index))
            except DataError as error:
                return error

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(indices), CHUNK):
                chunk = indices[start : start + CHUNK]
                yield from zip(chunk, pool.map(attempt, chunk), strict=True)


def channel_statistics(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (at least 1/255) of each channel, for pixel values in 0 … 1.

    Exact for any number of images (N, C, H, W) uint8, because computed from histograms.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.unbind(dim=1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean.append(float(share @ values))
        std.append(max(float(share @ (values - mean[-1]) ** 2) ** 0.5, 1 / 255))
    return tuple(mean), tuple(std)


def _no_stack(found: str) -> DataError:
    return DataError(
        f"images of one size, of at most {STACKED_BYTES / 2**30:.3g} GiB in all, for batched "
        "augmentation",
        found,
        "Set pretrain.augmentation.batched=false.",
    )
