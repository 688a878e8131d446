"""The images of a run and their uses: training, calibration, accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch

from edgesearch.data.contents import Contents, LeftOut, merged, tally
from edgesearch.data.image_set import ImageSet, PreprocessedImages, channel_statistics
from edgesearch.data.open_images import IsOutput, nothing_is_output, open_images
from edgesearch.data.preprocess import Preprocess
from edgesearch.data.settings import DataSettings
from edgesearch.data.splits import describe
from edgesearch.errors import DataError
from edgesearch.space.public_weights import Normalisation

DECODE_AT_ONCE = 60_000
"""Larger sets are decoded on use, not when they are opened."""


@dataclass(frozen=True)
class LabelledImages:
    """Training and test images (N, C, R, R) uint8 with labels (N,) int64, not normalised."""

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor
    preprocess: Preprocess

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise a batch to float32, channels last."""
        return _prepared(self.preprocess, images)


class ImagePool:
    """The images of a run; one seed gives the same images in the same order.

    Args:
        settings: Source of the images.
        channels: 1 or 3, as the search space requires.
        seed: Seed of the held-out share and of samples.
        normalisation: Mean and deviation of each channel where the settings give none; by default
            those of the training images.
        decode_all: Find unreadable images on first use in sets of any size. By default very large
            sets find and count them as they are used.
        is_output: Whether a folder is the output of a run, which is never read.

    Attributes:
        digest: Identifies the images.

    Raises:
        DataError: There are no images; also on first use if none, or none of a class, can be read.
    """

    def __init__(
        self,
        settings: DataSettings,
        channels: int,
        seed: int,
        decode_all: bool = False,
        is_output: IsOutput = nothing_is_output,
        normalisation: Normalisation | None = None,
    ) -> None:
        splits = open_images(settings, channels, seed, is_output)
        parts = (splits.train, splits.test, splits.labelled)
        self.seed = seed
        self.licence = settings.licence
        self.digest = "".join(part.digest() for part in parts if part is not None)
        self._splits = splits
        self._unread: dict[tuple[str, str], str] = {}
        self._train, self._test = splits.train, splits.test
        self._labelled = splits.labelled or splits.train
        self._settings = settings
        self._decode_all = decode_all
        self._expected = normalisation
        self._pixels = lru_cache(maxsize=16)(self._sample)
        self._labelled_sample = lru_cache(maxsize=16)(self._sample_with_labels)

    @cached_property
    def train(self) -> ImageSet:
        """The training split, decoded on first use."""
        return self._readable(self._train)

    @cached_property
    def test(self) -> ImageSet | None:
        """The test split, if any, decoded on first use."""
        return None if self._test is None else self._readable(self._test)

    @cached_property
    def _with_labels(self) -> ImageSet:
        """Reference images of classifiers."""
        whole = self._labelled is self._train
        return (self.train if whole else self._readable(self._labelled)).with_class()

    def _readable(self, images: ImageSet) -> ImageSet:
        if len(images) > DECODE_AT_ONCE and not self._decode_all:
            return images
        readable, unread = images.without_unreadable()
        self._note(images, unread)
        if images is not self._test and not self._settings.allow_missing_classes:
            _check_classes(images, readable, self.unreadable)
        return readable

    def _note(self, images: ImageSet, unread: Mapping[str, str]) -> None:
        where = "test" if images is self._test else ""  # pixels in memory are named by number
        self._unread |= {(where, name): reason for name, reason in unread.items()}

    @property
    def unreadable(self) -> tuple[LeftOut, ...]:
        """Images that could not be read so far, by reason."""
        return tally((reason, name) for (_, name), reason in self._unread.items())

    @property
    def contents(self) -> Contents:
        """The images as they were understood, less those that could not be read so far."""
        counts: dict[str, Any] = {}
        if "train" in vars(self):
            counts = {"train": len(self.train), "unlabelled": len(self.train.without_class)}
        if "test" in vars(self):
            counts["test"] = len(self.test or ())
        found = self._described
        return replace(found, left_out=merged([*found.left_out, *self.unreadable]), **counts)

    @cached_property
    def _described(self) -> Contents:
        return describe(self._splits)

    @property
    def has_labels(self) -> bool:
        """Whether training and test images have labels; decodes nothing."""
        labels = [each.labels for each in (self._labelled, self._test) if each is not None]
        return len(labels) == 2 and all(each is not None for each in labels)

    @property
    def readable_labels(self) -> torch.Tensor:
        """Labels of the readable reference images (of all in very large sets); may be empty."""
        labels = self._with_labels.labels
        return torch.empty(0, dtype=torch.int64) if labels is None else labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names; decodes nothing."""
        return self._labelled.class_names

    def require_labels(self) -> None:
        """Raise a DataError if training or test images have no labels."""
        if not self.has_labels:
            raise DataError(
                f"training and test images with classes in {self._train.origin.absolute()}, for an "
                "accuracy or a classifier",
                str(self.contents),
                "Put the images of each class into a folder of its own (in shards: or a .cls "
                "member beside each image), with data.holdout above 0 or a test folder.",
            )

    def annotated(self, kind: str | None = None) -> tuple[ImageSet, ImageSet]:
        """Training and test images with labels, or with another kind of annotations.

        Args:
            kind: "boxes" or "maps"; classes if None.

        Raises:
            DataError: There are none.
        """
        if kind is None:
            self.require_labels()
        train = self._with_labels
        if self.test is None or (kind is not None and train.annotations_kind != kind):
            raise DataError(
                f"training and test images with {kind} in {self._train.origin.absolute()}",
                str(self.contents),
                "Set data.labels to the format of the annotations.",
            )
        return train, self.test

    @cached_property
    def _normalisation(self) -> Normalisation:
        given, channels = self._settings, self._train.channels
        if given.mean is not None and given.std is not None:
            return tuple(given.mean), tuple(given.std)
        if self._expected is not None:
            return self._expected
        neutral = Preprocess(64, channels, (0.0,) * channels, (1.0,) * channels, given.resize_ratio)
        chosen = self._order(len(self.train))[:2000]
        return channel_statistics(self.train.preprocessed(neutral, chosen).images)

    def preprocess(self, resolution: int, fit: str = "crop") -> Preprocess:
        """The preprocessing for networks of a resolution; see `Preprocess.fit`."""
        ratio, channels = self._settings.resize_ratio, self._train.channels
        return Preprocess(resolution, channels, *self._normalisation, ratio, fit=fit)

    def sample(
        self, resolution: int, first: int, count: int, part: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """Images `first` to `first + count` of the training split in a seeded order.

        Args:
            resolution: R.
            first: Offset in the order.
            count: N; fewer if the split is smaller.
            part: Start and end of a slice of the N images; all N are decoded and cached.

        Returns:
            (N, C, R, R) float32, normalised, channels last.
        """
        pixels = self._pixels(resolution, first, count)
        return _prepared(self.preprocess(resolution), pixels[slice(*(part or (None,)))])

    def sample_labelled(
        self, resolution: int, count: int, part: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """As `sample`, of the first `count` training images with a class."""
        pixels = self._labelled_sample(resolution, count)[0]
        return _prepared(self.preprocess(resolution), pixels[slice(*(part or (None,)))])

    def labels_of_sample(self, resolution: int, count: int) -> torch.Tensor:
        """Labels (N,) int64 of the images of `sample_labelled`."""
        return self._labelled_sample(resolution, count)[1]

    def pixels(self, resolution: int, first: int, count: int) -> torch.Tensor:
        """The images of `sample` as (N, C, R, R) uint8, not normalised."""
        return self._pixels(resolution, first, count)

    def _sample(self, resolution: int, first: int, count: int) -> torch.Tensor:
        chosen = self._order(len(self.train))[first : first + count]
        if not chosen:
            raise DataError(
                f"more than {first} images for calibration and search",
                f"{len(self.train)} images",
                "Add images, or set smaller search.images and search.calibration_images.",
            )
        fitted = self.train.preprocessed(self.preprocess(resolution), chosen)
        self._note(self.train, fitted.unread)
        return fitted.images

    def _sample_with_labels(self, resolution: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = self._with_labels
        chosen = self._order(len(images))[:count]
        fitted = images.preprocessed(self.preprocess(resolution), chosen)
        assert fitted.labels is not None
        self._note(images, fitted.unread)
        return fitted.images, fitted.labels

    def labelled(
        self, resolution: int, train_images: int = 20_000, test_images: int = 5_000
    ) -> LabelledImages:
        """Images for accuracies and classifiers; a seeded sample of larger splits.

        Raises:
            DataError: There are no labels.
        """
        self.require_labels()
        preprocess = self.preprocess(resolution)
        parts = []
        for images, limit in ((self._with_labels, train_images), (self.test, test_images)):
            assert images is not None
            fitted = images.preprocessed(preprocess, self._order(len(images))[:limit])
            assert fitted.labels is not None
            self._note(images, fitted.unread)
            parts.append((fitted.images, fitted.labels))
        return LabelledImages(*parts[0], *parts[1], preprocess)

    def examples(
        self, preprocess: Preprocess, train_images: int, test_images: int
    ) -> tuple[PreprocessedImages, PreprocessedImages]:
        """A seeded sample of the training and of the test images; decodes no others.

        Without test images, both are parts of the training images.

        Raises:
            DataError: None of them can be read.
        """
        train, test = self._order(len(self._train)), self._order(len(self._test or ()))
        if self._test is None:
            count = min(test_images, len(train) // 2)
            test, train = train[:count], train[count:]
        return (
            self._train.preprocessed(preprocess, train[:train_images]),
            (self._test or self._train).preprocessed(preprocess, test[:test_images]),
        )

    def _order(self, count: int) -> Sequence[int]:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(count, generator=generator).tolist()


def _check_classes(images: ImageSet, readable: ImageSet, unreadable: Sequence[LeftOut]) -> None:
    """Refuse classes without any image that can be read."""
    if images.labels is None or readable.labels is None:
        return
    left = set(readable.labels.tolist())
    lost = [images.class_names[each] for each in sorted(set(images.labels.tolist()) - left)]
    if lost:
        raise DataError(
            f"a training image that can be read of each class in {images.origin.absolute()}",
            f"none of {', '.join(lost[:5])}; could not be read: {', '.join(map(str, unreadable))}",
            "Mend these files, remove the classes, or set data.allow_missing_classes=true to go on "
            "without.",
        )


def _prepared(preprocess: Preprocess, images: torch.Tensor) -> torch.Tensor:
    return preprocess.normalise(images).contiguous(memory_format=torch.channels_last)
