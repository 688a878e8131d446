"""Batches of views, from memory and by worker processes."""

import itertools
from pathlib import Path

import pytest
import torch
from PIL import Image

from edgesearch.data.image_set import ImageSet
from edgesearch.data.preprocess import Preprocess
from edgesearch.errors import DataError
from edgesearch.pretrain.batched_views import BatchedViews
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.randomness import order_of_epoch
from edgesearch.pretrain.views import Augmentation, TorchvisionViews

RULE = Preprocess(16, 3, (0.5,) * 3, (0.25,) * 3)
RECIPES = (Augmentation(), Augmentation(blur_probability=0.0))


def images_of(*sizes, channels=3):
    generator = torch.Generator().manual_seed(0)
    items = tuple(
        torch.randint(0, 256, (channels, *size), dtype=torch.uint8, generator=generator)
        for size in sizes
    )
    return ImageSet(items, channels, Path("random"))


TEN = images_of(*[(12, 12)] * 10)


def loader_of(images=TEN, *, batched, batch_size=4, seed=0, workers=0):
    return make_loader(
        images,
        RECIPES,
        RULE,
        batched=batched,
        batch_size=batch_size,
        seed=seed,
        workers=workers,
    )


def equal(one, other):
    pairs = list(itertools.zip_longest(one, other))
    return all(torch.equal(a, b) for left, right in pairs for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("batched", [True, False])
class TestBoth:
    def test_visit_each_image_at_most_once_in_the_order_of_the_epoch(self, batched):
        loader = loader_of(batched=batched)
        assert loader.steps_per_epoch == 2
        batches = list(loader.batches(3, 0))
        order = torch.from_numpy(order_of_epoch(10, 0, 3))
        assert len(batches) == 2
        for batch, chosen in zip(batches, order[:8].split(4), strict=True):
            if batched:
                views = BatchedViews(RECIPES, RULE, 0)
                expected = views(TEN.stack()[chosen], chosen, 3)
            else:
                views = TorchvisionViews(RECIPES, RULE, 0)
                pairs = [views(TEN.load(i), i, 3) for i in chosen.tolist()]
                expected = tuple(map(torch.stack, zip(*pairs, strict=True)))
            assert all(map(torch.equal, batch, expected))

    def test_give_the_same_again(self, batched):
        loader = loader_of(batched=batched)
        assert equal(loader.batches(1, 0), loader_of(batched=batched).batches(1, 0))
        assert not equal(loader.batches(1, 0), loader.batches(2, 0))
        assert not equal(loader.batches(1, 0), loader_of(batched=batched, seed=1).batches(1, 0))

    def test_go_on_in_the_middle(self, batched):
        loader = loader_of(batched=batched, batch_size=3)
        whole = list(loader.batches(0, 0))
        assert len(whole) == 3
        assert equal(loader.batches(0, 1), whole[1:])
        assert equal(loader.batches(0, 2), whole[2:])

    def test_too_few_images(self, batched):
        with pytest.raises(DataError, match="at least one batch of 11 images .*; found: 10 images"):
            loader_of(batched=batched, batch_size=11)


def test_workers_change_nothing():
    images = images_of((12, 12), (20, 9), (16, 16), (8, 30), (12, 12))
    alone, helped = (
        loader_of(images, batched=False, batch_size=2, workers=workers) for workers in (0, 2)
    )
    assert equal(alone.batches(0, 0), helped.batches(0, 0))
    assert equal(alone.batches(0, 1), helped.batches(0, 1))


def test_images_of_several_sizes_cannot_be_augmented_in_batches():
    images = images_of((12, 12), (20, 9))
    with pytest.raises(DataError, match="of one size.*; found: 12 × 12 and 9 × 20 pixels among 2"):
        loader_of(images, batched=True, batch_size=2)
    (batch,) = loader_of(images, batched=False, batch_size=2).batches(0, 0)
    assert batch[0].shape == (2, 3, 16, 16)


class TestUnreadableImages:
    @pytest.fixture
    def folder(self, tmp_path):
        for number in range(6):
            Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
        return tmp_path

    def open(self, folder):
        return ImageSet(tuple(sorted(folder.iterdir())), 3, folder)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_neighbour_stands_in(self, folder, workers):
        (folder / "2.png").write_bytes(b"garbage")
        (folder / "3.png").unlink()
        images = ImageSet(tuple(folder / f"{number}.png" for number in range(6)), 3, folder)
        loader = loader_of(images, batched=False, batch_size=6, workers=workers)
        ((first, _),) = loader.batches(0, 0)
        assert loader.replaced == 2
        place = order_of_epoch(6, 0, 0).tolist().index(2)
        views = TorchvisionViews(RECIPES, RULE, 0)
        assert torch.equal(first[place], views(images.load(4), 2, 0)[0])
        list(loader.batches(1, 0))
        assert loader.replaced == 2  # counted anew in each epoch

    @pytest.mark.parametrize("workers", [0, 1])
    def test_none_can_be_read(self, folder, workers):
        images = self.open(folder)
        for path in folder.iterdir():
            path.write_bytes(b"garbage")
        loader = loader_of(images, batched=False, batch_size=6, workers=workers)
        with pytest.raises(DataError, match=r"\d\.png"):
            list(loader.batches(0, 0))
