"""Views whose crops a teacher has seen, with its embeddings or maps.

Each image has a fixed number of crops, the same for every seed of a run, so that the teacher embeds
each once. A student sees one of them in each epoch, with new flips and changes of colour.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from edgesearch.data.image_set import ImageSet
from edgesearch.data.preprocess import Preprocess
from edgesearch.errors import DataError
from edgesearch.events import Event, Report
from edgesearch.pretrain.batched_views import DRAWS, BatchedViews
from edgesearch.pretrain.views import TorchvisionViews, after_crop
from edgesearch.teacher.teacher import Teacher
from edgesearch.teacher.teacher_cache import TeacherCache
from edgesearch.training.randomness import hash64, seed_of, seeded, uniforms

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import AugmentationSettings

_CROPS = 0x7E
"""Key of the crops' seeds."""
TEACHER_BATCH = 64
"""Crops that a teacher embeds at once, about."""
TIMED_CROPS = 16
"""Crops from which the time of all is estimated."""


class Crops:
    """The fixed crops of all images.

    Args:
        seed: Seed of their choice in each epoch.
        scale: Smallest and largest area, as shares of the image's area.
        count: Crops of each image.
    """

    def __init__(self, seed: int, scale: tuple[float, float], count: int) -> None:
        self.seed, self.scale, self.count = seed, scale, count
        self._draw = v2.RandomResizedCrop(1, scale)

    def number(self, index: int, epoch: int) -> int:
        """Which crop of an image a student sees in an epoch."""
        return int(hash64(self.seed, _CROPS, epoch, index) % np.uint64(self.count))

    def __call__(self, image: torch.Tensor, index: int, number: int, size: int) -> torch.Tensor:
        """A crop (C, size, size) uint8 of an image (C, H, W) uint8."""
        with seeded(seed_of(_CROPS, index, number)):
            box = self._draw.make_params([image])
        place = (box[name] for name in ("top", "left", "height", "width"))
        return TF.resized_crop(image, *place, [size, size], antialias=True)


class TaughtViews(TorchvisionViews):
    """Views of single images of any size, with the teacher's embeddings (D,) of the first.

    Maps (D, h, w) in their place are mirrored where the view is. Further views have crops of their
    own.
    """

    def __init__(
        self,
        augmentations: Sequence[AugmentationSettings],
        preprocess: Preprocess,
        seed: int,
        crops: Crops,
        taught: TeacherCache,
    ) -> None:
        super().__init__(augmentations, preprocess, seed)
        self.transforms[0] = v2.Compose(after_crop(augmentations[0], preprocess))
        self.crops, self.taught, self.resolution = crops, taught, preprocess.resolution

    def __call__(self, image: torch.Tensor, index: int, epoch: int) -> tuple[torch.Tensor, ...]:
        """Views (C, R, R) float32 of (C, H, W) uint8, and the teacher's embedding or map."""
        number = self.crops.number(index, epoch)
        crop = self.crops(image, index, number, self.resolution)
        others = [image] * (len(self.transforms) - 1)
        taught = self.taught[index * self.crops.count + number]
        if taught.ndim == 1:
            return *self.changed([crop, *others], index, epoch), taught
        # To torchvision a map is a mask: it follows the geometry, and no change of colour.
        first = crop, tv_tensors.Mask(taught)
        (view, mirrored), *more = self.changed([first, *others], index, epoch)
        return view, *more, mirrored.as_subclass(torch.Tensor)


class BatchedTaughtViews(BatchedViews):
    """The same of batches of images of equal size."""

    def __init__(
        self,
        augmentations: Sequence[AugmentationSettings],
        preprocess: Preprocess,
        seed: int,
        crops: Crops,
        taught: TeacherCache,
    ) -> None:
        super().__init__(augmentations, preprocess, seed)
        self.crops, self.taught = crops, taught

    def __call__(
        self, images: torch.Tensor, indices: torch.Tensor, epoch: int
    ) -> tuple[torch.Tensor, ...]:
        """Views (N, C, R, R) float32 of (N, C, H, W) uint8, and embeddings or maps."""
        a, numbers = self.augmentations[0], [self.crops.number(i, epoch) for i in indices.tolist()]
        x = torch.stack(
            [
                self.crops(image, index, number, self.preprocess.resolution)
                for image, index, number in zip(images, indices.tolist(), numbers, strict=True)
            ]
        )
        draws = uniforms(DRAWS, self.seed, epoch, indices.numpy(), 0)
        on_cpu = torch.from_numpy(draws).to(torch.float32)
        mirrored = (on_cpu[:, 4] < a.flip_probability).to(x.device)[:, None, None, None]
        x = torch.where(mirrored, x.flip(3), x).to(torch.float32) / 255
        rows = indices.numpy() * self.crops.count + np.array(numbers)
        others = super().views_from(1, images, indices, epoch)
        taught = self.taught[rows].to(x.device)
        if taught.ndim == 4:
            taught = torch.where(mirrored, taught.flip(3), taught)
        return self.changed(x, a, on_cpu), *others, taught


class Teaching:
    """Has a teacher embed the crops of all training images, or give maps of them.

    Args:
        teacher: The teacher.
        images: The training images.
        crops: Their crops.
        cache: Receives the embeddings or maps.
        report: Receives the progress.
    """

    def __init__(
        self,
        teacher: Teacher,
        images: ImageSet,
        crops: Crops,
        cache: TeacherCache,
        report: Report,
    ) -> None:
        self.teacher, self.images, self.crops = teacher, images, crops
        self.cache, self.report = cache, report

    def seconds_left(self) -> float:
        """Time that the missing embeddings take here, from some of them."""
        left, count = self.cache.rows - self.cache.done, self.crops.count
        images = min(len(self.images), max(1, TIMED_CROPS // count))
        if not left:
            return 0.0
        self.embed(range(count))  # warms up
        begun = time.monotonic()
        self.embed(range(images * count))
        return left * (time.monotonic() - begun) / (images * count)

    def fill(self, check: Callable[[], None]) -> None:
        """Compute the missing embeddings; `check` may raise to stop after each batch."""
        cache, count = self.cache, self.crops.count
        if text := cache.already(count):
            self.report(Event("pretrain", text))

        def after(done: int) -> None:
            text = f"{self.teacher.name} embeds {count} crops of each image"
            self.report(Event("pretrain", text, done // count, len(self.images), within=True))
            check()

        if cache.done < cache.rows:
            cache.fill(self.embed, count * max(1, TEACHER_BATCH // count), after)

    def embed(self, rows: range) -> torch.Tensor:
        """Embeddings, or maps, of the crops of whole images, given as rows of the cache."""
        count, size = self.crops.count, self.teacher.size
        crops = torch.stack(
            [
                crop
                for index in range(rows.start // count, rows.stop // count)
                for crop in self._crops_of(index, size)
            ]
        )
        grid = self.cache.grid
        return self.teacher(crops) if grid is None else self.teacher.maps(crops, grid)

    def _crops_of(self, index: int, size: int) -> list[torch.Tensor]:
        try:
            image = self.images.load(index)
        except DataError:  # never seen by a student: the loader takes another image
            image = torch.zeros(self.images.channels, 8, 8, dtype=torch.uint8)
        return [self.crops(image, index, number, size) for number in range(self.crops.count)]
