"""Shards give the same batches as the same images in files, bit for bit."""

import io
import itertools
import tarfile

import pytest
import torch
from PIL import Image

from edgesearch.data.open_images import open_images
from edgesearch.data.preprocess import Preprocess
from edgesearch.data.settings import DataSettings
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.randomness import order_of_epoch
from edgesearch.pretrain.views import Augmentation

RULE = Preprocess(16, 3, (0.5,) * 3, (0.25,) * 3)
COUNT = 10


@pytest.fixture
def files(tmp_path):
    """JPEG files of noise, of several sizes."""
    folder = tmp_path / "files"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(COUNT):
        size = (12, 12 + number % 3, 3)
        noise = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        Image.fromarray(noise.numpy()).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture
def shards(files, tmp_path):
    """The same files, four in a shard."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, path in enumerate(sorted(files.iterdir())):
        with tarfile.open(folder / f"{number // 4}.tar", "a") as archive:
            archive.add(path, path.name)
    return folder


def batches(source, root, *, workers=0, epoch=0, first_step=0, batched=False):
    images = open_images(DataSettings(source=source, root=root), 3).train
    recipes = (Augmentation(),) * 2
    loader = make_loader(
        images, recipes, RULE, batched=batched, batch_size=3, seed=0, workers=workers
    )
    return list(loader.batches(epoch, first_step)), loader.replaced


def equal(one, other):
    pairs = list(itertools.zip_longest(one, other))
    return all(torch.equal(a, b) for left, right in pairs for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_same_batches_as_files(files, shards, workers):
    expected, _ = batches("folder", files, epoch=2)
    found, replaced = batches("shards", shards, epoch=2, workers=workers)
    assert len(found) == COUNT // 3
    assert equal(found, expected)
    assert replaced == 0
    assert not equal(found, batches("shards", shards, epoch=3)[0])


def test_go_on_in_the_middle(files, shards):
    expected, _ = batches("folder", files)
    assert equal(batches("shards", shards, first_step=2, workers=1)[0], expected[2:])


def test_same_batches_where_whole_batches_are_augmented(files, shards):
    for path in files.iterdir():
        Image.open(path).resize((14, 14)).save(path, quality=95)
    for path in shards.iterdir():
        path.unlink()
    with tarfile.open(shards / "0.tar", "w") as archive:
        for path in sorted(files.iterdir()):
            archive.add(path, path.name)
    expected, _ = batches("folder", files, batched=True)
    assert equal(batches("shards", shards, batched=True)[0], expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_neighbour_stands_in_for_an_unreadable_image(files, tmp_path, workers):
    order = order_of_epoch(COUNT, 0, 0)[:9].tolist()
    damaged = order[0]
    (files / f"{damaged}.jpg").write_bytes(b"garbage")
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards/a.tar", "w") as archive:
        for path in sorted(files.iterdir()):
            content = path.read_bytes()
            info = tarfile.TarInfo(path.name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    expected, replaced = batches("folder", files)
    assert replaced == 1
    found, replaced = batches("shards", tmp_path / "shards", workers=workers)
    assert replaced == 1
    assert equal(found, expected)
