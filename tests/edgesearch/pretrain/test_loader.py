"""Batches of views: from memory, by worker processes, from shards, on any device."""

import io
import itertools
import multiprocessing
import os
import signal
import tarfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from edgesearch.data.folder import ImageFile
from edgesearch.data.image_set import ImageSet
from edgesearch.data.open_images import open_images
from edgesearch.data.preprocess import Preprocess
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError
from edgesearch.pretrain import loader as loader_module
from edgesearch.pretrain.batched_views import BatchedViews
from edgesearch.pretrain.loader import WorkersError, make_loader
from edgesearch.pretrain.settings import AugmentationSettings, PretrainSettings
from edgesearch.pretrain.views import TorchvisionViews
from edgesearch.training.randomness import order_of_epoch

RULE = Preprocess(16, 3, (0.5,) * 3, (0.25,) * 3)
AUGMENTATIONS = AugmentationSettings(), AugmentationSettings(blur_probability=0.0)
GPU = pytest.param("cuda", marks=pytest.mark.gpu)


def images_of(*sizes, channels=3):
    generator = torch.Generator().manual_seed(0)
    items = tuple(
        torch.randint(0, 256, (channels, *size), dtype=torch.uint8, generator=generator)
        for size in sizes
    )
    return ImageSet(items, channels, Path("random"))


TEN = images_of(*[(12, 12)] * 10)


def loader_of(images=TEN, *, batched, batch_size=4, seed=0, workers=0, device="cpu", **options):
    settings = PretrainSettings(
        method="simclr",
        **options,
        batch_size=batch_size,
        workers=workers,
        augmentation={"batched": batched},
    )
    return make_loader(images, AUGMENTATIONS, RULE, settings, seed, device)


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
                views = BatchedViews(AUGMENTATIONS, RULE, 0)
                expected = views(TEN.stack()[chosen], chosen, 3)
            else:
                views = TorchvisionViews(AUGMENTATIONS, RULE, 0)
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

    def test_without_a_training_any_number_of_images_is_enough(self, batched):
        loader = loader_of(batched=batched, batch_size=11, epochs=0, init="efficientnet-lite0")
        assert loader.batch_size == 10

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


@contextmanager
def limited(name, number):
    """A lower limit of this process and of those that it starts."""
    resource = pytest.importorskip("resource")
    former = resource.getrlimit(getattr(resource, name))
    resource.setrlimit(getattr(resource, name), (number, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(getattr(resource, name), former)


def test_workers_that_cannot_share_their_batches_end_the_epoch():
    loader = loader_of(batched=False, workers=2)
    says = r"enough shared memory, about 0\.1 MB, for 2 worker processes .* found: unable to"
    # Files of shared memory are files; torch never tells the trainer that it could not make one.
    with limited("RLIMIT_FSIZE", 4096), pytest.raises(WorkersError, match=says) as caught:
        list(loader.batches(0, 0))
    assert "--shm-size" in caught.value.remedy
    assert not multiprocessing.active_children()
    assert len(list(loader.batches(0, 0))) == 2


@pytest.mark.slow
def test_workers_that_hang_do_not_keep_their_trainer():
    batches = loader_of(batched=False, workers=1).batches(0, 0)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGSTOP)
    batches.close()
    worker.join(10)
    assert worker.exitcode == -signal.SIGKILL


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files by Linux's /proc")
def test_workers_that_lack_open_files_end_the_epoch():
    loader = loader_of(batched=False, workers=4)
    count = len(os.listdir("/proc/self/fd")) + 2
    says = "enough open files for 4 worker processes .* Raise their limit"
    with limited("RLIMIT_NOFILE", count), pytest.raises(WorkersError, match=says):
        list(loader.batches(0, 0))
    assert not multiprocessing.active_children()


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
        return ImageSet(tuple(map(ImageFile.at, sorted(folder.iterdir()))), 3, folder)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_neighbour_stands_in(self, folder, workers):
        images = self.open(folder)
        (folder / "2.png").write_bytes(b"garbage")
        (folder / "3.png").unlink()
        loader = loader_of(images, batched=False, batch_size=6, workers=workers)
        ((first, _),) = loader.batches(0, 0)
        assert loader.replaced == 2
        place = order_of_epoch(6, 0, 0).tolist().index(2)
        views = TorchvisionViews(AUGMENTATIONS, RULE, 0)
        assert torch.equal(first[place], views(images.load(4), 4, 0)[0])
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


class TestShards:
    """The same batches as from the same images in files, bit for bit."""

    COUNT = 10

    @pytest.fixture
    def files(self, tmp_path):
        """JPEG files of noise, of several sizes."""
        folder = tmp_path / "files"
        folder.mkdir()
        generator = torch.Generator().manual_seed(0)
        for number in range(self.COUNT):
            size = (12, 12 + number % 3, 3)
            noise = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
            Image.fromarray(noise.numpy()).save(folder / f"{number}.jpg")
        return folder

    def shards(self, files):
        """The same files, four in a shard."""
        folder = files.with_name("shards")
        folder.mkdir()
        for number, path in enumerate(sorted(files.iterdir())):
            content = path.read_bytes()
            info = tarfile.TarInfo(path.name)
            info.size = len(content)
            with tarfile.open(folder / f"{number // 4}.tar", "a") as archive:
                archive.addfile(info, io.BytesIO(content))
        return folder

    @staticmethod
    def batches(source, root, *, workers=0, epoch=0, first_step=0, batched=False):
        images = open_images(DataSettings(source=source, root=root), 3).train
        loader = loader_of(images, batched=batched, batch_size=3, workers=workers)
        return list(loader.batches(epoch, first_step)), loader.replaced

    @pytest.mark.parametrize("workers", [0, 2])
    def test_same_batches_as_files(self, files, workers):
        expected, _ = self.batches("folder", files, epoch=2)
        shards = self.shards(files)
        found, replaced = self.batches("shards", shards, epoch=2, workers=workers)
        assert len(found) == self.COUNT // 3
        assert equal(found, expected)
        assert replaced == 0
        middle, _ = self.batches("shards", shards, epoch=2, first_step=2, workers=workers)
        assert equal(middle, expected[2:])

    def test_same_batches_where_whole_batches_are_augmented(self, files):
        for path in files.iterdir():
            Image.open(path).resize((14, 14)).save(path, quality=95)
        expected, _ = self.batches("folder", files, batched=True)
        assert equal(self.batches("shards", self.shards(files), batched=True)[0], expected)

    def test_a_neighbour_stands_in_for_an_unreadable_image(self, files):
        damaged = order_of_epoch(self.COUNT, 0, 0)[0]
        (files / f"{damaged}.jpg").write_bytes(b"garbage")
        expected, replaced = self.batches("folder", files)
        assert replaced == 1
        found, replaced = self.batches("shards", self.shards(files))
        assert replaced == 1
        assert equal(found, expected)


class TestDevices:
    @pytest.mark.parametrize("batched", [True, False])
    def test_batches_come_on_the_device(self, batched):
        made = loader_of(batched=batched, device="meta")
        batches = list(made.batches(0, 1))
        assert len(batches) == 1
        assert {view.device.type for batch in batches for view in batch} == {"meta"}
        if batched:
            assert made.images.device.type == "meta"  # moved once

    def test_images_too_large_for_a_gpu_stay_where_they_are(self, monkeypatch):
        images, gpu = TEN.stack(), torch.device("cuda")
        for free, fits in ((4 * images.nbytes, True), (4 * images.nbytes - 4, False)):
            monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 0))
            assert loader_module._fits(images, gpu) == fits
        assert loader_module._fits(images, torch.device("cpu"))

    @pytest.mark.parametrize("device", ["cpu", GPU])
    def test_images_that_do_not_stay_on_the_device_give_the_same(self, device, monkeypatch):
        resident = loader_of(batched=True, device=device)
        expected = list(resident.batches(0, 0))
        monkeypatch.setattr(loader_module, "_fits", lambda images, device: False)
        moved = loader_of(batched=True, device=device)
        assert resident.images.device.type == device
        assert moved.images.device.type == "cpu"
        assert equal(moved.batches(0, 0), expected)
