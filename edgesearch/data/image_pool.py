"""The images of a run, and which of them are used for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from devices.cache_dir import default_cache_dir
from edgesearch.data.image_set import ImageSet, channel_statistics
from edgesearch.data.open_images import open_images
from edgesearch.data.preprocess import Preprocess
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError

STATISTICS_IMAGES = 2000
DECODE_AT_ONCE = 60_000
"""Up to so many images are decoded once when they are opened; more stay files."""
LABELLED_TRAIN_IMAGES = 20_000
LABELLED_TEST_IMAGES = 5_000


@dataclass(frozen=True)
class LabelledImages:
    """Images for accuracies and classifiers; as bytes, a quarter of what networks read.

    Attributes:
        train: (N, C, R, R) uint8.
        train_labels: (N,) int64.
        test: (M, C, R, R) uint8.
        test_labels: (M,) int64.
        preprocess: What normalises them.
    """

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor
    preprocess: Preprocess

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """A part of the images as a network reads them: float32, channels last."""
        normalised = self.preprocess.normalise(images)
        return normalised.contiguous(memory_format=torch.channels_last)


class ImagePool:
    """Opens the images of a run; the same seed gives the same images in the same order.

    Args:
        source: Where the images come from.
        channels: 1 or 3, as the search space wants them.
        seed: Decides what is held out and what is sampled.
        decode_all: Find unreadable images on first use however many images there are; otherwise
            those of a very large set are found, and counted, as they are used.

    Raises:
        DataError: There are no images; on first use, too, if none can be read.
    """

    def __init__(
        self, source: DataSettings, channels: int, seed: int, decode_all: bool = False
    ) -> None:
        splits = open_images(
            source.source,
            source.root,
            channels,
            source.holdout,
            seed,
            name=source.name,
            cache_dir=default_cache_dir() / "shards",
        )
        parts = (splits.train, splits.test, splits.labelled)
        self.seed = seed
        self.licence = source.licence
        self.digest = "".join(part.digest() for part in parts if part is not None)
        self.skipped = 0
        self._splits = splits
        self._source = source
        self._channels = channels
        self._decode_all = decode_all
        self._pixels = lru_cache(maxsize=16)(self._sample)

    @cached_property
    def train(self) -> ImageSet:
        """The training split; decoded on first use, what cannot be read adds to `skipped`."""
        return self._readable(self._splits.train)

    @cached_property
    def test(self) -> ImageSet | None:
        """The test split if there is one; decoded on first use."""
        return None if self._splits.test is None else self._readable(self._splits.test)

    @cached_property
    def _with_labels(self) -> ImageSet:
        """The images whose labels others are classified by."""
        labelled = self._splits.labelled
        return self.train if labelled is None else self._readable(labelled)

    def _readable(self, images: ImageSet) -> ImageSet:
        if len(images) > DECODE_AT_ONCE and not self._decode_all:
            return images
        readable, skipped = images.without_unreadable()
        self.skipped += skipped
        return readable

    @property
    def has_labels(self) -> bool:
        """Whether there are labelled images to train and to evaluate on; decodes nothing."""
        train, test = self._splits.labelled or self._splits.train, self._splits.test
        return train.labels is not None and test is not None and test.labels is not None

    @property
    def readable_labels(self) -> torch.Tensor:
        """Labels of the images that others are classified by; without labels, none.

        What cannot be read is left out; of a very large set it is not looked for.
        """
        labels = self._with_labels.labels
        return torch.empty(0, dtype=torch.int64) if labels is None else labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; decodes nothing."""
        return (self._splits.labelled or self._splits.train).class_names

    def require_labels(self) -> None:
        """Refuse images without labels.

        Raises:
            DataError: There are no labels, or none in a test split.
        """
        if not self.has_labels:
            raise DataError(
                "class folders, for an accuracy or a classifier",
                "no labels, or no test images with labels, in "
                f"{self._splits.train.origin.absolute()}",
                "Put the images of each class into a folder of its own (in shards: a .cls member "
                "beside each image), with data.holdout above 0.",
            )

    @cached_property
    def _normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self._source.mean is not None and self._source.std is not None:
            return tuple(self._source.mean), tuple(self._source.std)
        neutral = Preprocess(
            64, self._channels, (0.0,) * self._channels, (1.0,) * self._channels,
            self._source.resize_ratio,
        )  # fmt: skip
        chosen = self._order(len(self.train))[:STATISTICS_IMAGES]
        return channel_statistics(self.train.preprocessed(neutral, chosen).images)

    def preprocess(self, resolution: int) -> Preprocess:
        """How images are fitted to networks of a resolution."""
        mean, std = self._normalisation
        return Preprocess(resolution, self._channels, mean, std, self._source.resize_ratio)

    def sample(
        self, resolution: int, first: int, count: int, part: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """Images of the training split, in a seeded order.

        Args:
            resolution: R.
            first: How many of the order are passed over.
            count: N; fewer if the split has fewer.
            part: Only those from one number to another of the N; all of them are decoded and kept.

        Returns:
            (N, C, R, R) float32, normalised, in channels-last memory format.
        """
        pixels = self._pixels(resolution, first, count)
        if part is not None:
            pixels = pixels[slice(*part)]
        images = self.preprocess(resolution).normalise(pixels)
        return images.contiguous(memory_format=torch.channels_last)

    def _sample(self, resolution: int, first: int, count: int) -> torch.Tensor:
        chosen = self._order(len(self.train))[first : first + count]
        if not chosen:
            raise DataError(
                f"more than {first} images for calibration and search",
                f"{len(self.train)} images",
                "Add images, or set smaller search.images and search.calibration_images.",
            )
        fitted = self.train.preprocessed(self.preprocess(resolution), chosen)
        self.skipped += fitted.skipped
        return fitted.images

    def labelled(
        self,
        resolution: int,
        train_images: int = LABELLED_TRAIN_IMAGES,
        test_images: int = LABELLED_TEST_IMAGES,
    ) -> LabelledImages:
        """Images for accuracies and classifiers; a seeded part where there are more.

        Args:
            resolution: R.
            train_images: Training images at most.
            test_images: Images held out at most.

        Raises:
            DataError: There are no labels.
        """
        self.require_labels()
        preprocess = self.preprocess(resolution)
        train, test = self._with_labels, self.test
        assert test is not None
        parts = []
        for images, limit in ((train, train_images), (test, test_images)):
            fitted = images.preprocessed(preprocess, self._order(len(images))[:limit])
            assert fitted.labels is not None
            self.skipped += fitted.skipped
            parts.append((fitted.images, fitted.labels))
        return LabelledImages(*parts[0], *parts[1], preprocess)

    def _order(self, count: int) -> Sequence[int]:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(count, generator=generator).tolist()
