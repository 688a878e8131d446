"""Sets of images, on disk and in memory, with unreadable ones among them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from edgesearch.data import image_set
from edgesearch.data.folder import ImageFile
from edgesearch.data.image_set import ImageSet, channel_statistics
from edgesearch.data.preprocess import Preprocess
from edgesearch.errors import DataError

RULE = Preprocess(8, 3, (0.5,) * 3, (0.25,) * 3)
BYTES = 3 * 12 * 10


def write_images(folder, count=6, size=lambda i: (10, 12)):
    """PNG files whose pixels all equal their number."""
    paths = tuple(folder / f"{i}.png" for i in range(count))
    for i, path in enumerate(paths):
        Image.new("L", size(i), i).save(path)
    return tuple(map(ImageFile.at, paths))


@pytest.fixture
def on_disk(tmp_path):
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    return ImageSet(write_images(tmp_path), 3, tmp_path, labels, ("a", "b"))


@pytest.fixture
def damaged(on_disk):
    on_disk.items[0].path.write_bytes(b"")
    on_disk.items[3].path.write_bytes(on_disk.items[3].path.read_bytes()[:40])
    return on_disk


def test_load_gives_pixels_from_files_and_from_memory(on_disk):
    assert len(on_disk) == 6
    assert torch.equal(on_disk.load(4), torch.full((3, 12, 10), 4, dtype=torch.uint8))
    in_memory, unread = on_disk.without_unreadable()
    assert unread == {}
    assert torch.equal(in_memory.load(4), on_disk.load(4))


def test_subset_keeps_images_and_labels_together(on_disk):
    subset = on_disk.subset([5, 0])
    assert [subset.load(i)[0, 0, 0].item() for i in range(2)] == [5, 0]
    assert subset.labels.tolist() == [1, 0]
    assert subset.class_names == ("a", "b")


def test_unreadable_images_are_left_out_with_their_labels(damaged):
    readable, unread = damaged.without_unreadable(4 * BYTES)
    assert unread == {"0.png": "empty", "3.png": "damaged"}
    assert readable.labels.tolist() == [1, 0, 0, 1]
    assert [image[0, 0, 0].item() for image in readable.items] == [1, 2, 4, 5]
    on_disk, unread = damaged.without_unreadable(4 * BYTES - 1)  # these stay files
    assert on_disk.items == tuple(damaged.items[i] for i in (1, 2, 4, 5))
    assert list(unread) == ["0.png", "3.png"]


def test_preprocessed_skips_unreadable_images(damaged):
    result = damaged.preprocessed(RULE)
    assert result.images.shape == (4, 3, 8, 8)
    assert result.images.dtype == torch.uint8
    assert result.images[:, 0, 0, 0].tolist() == [1, 2, 4, 5]
    assert result.labels.tolist() == [1, 0, 0, 1]
    assert list(result.unread) == ["0.png", "3.png"]
    chosen = damaged.preprocessed(RULE, [5, 3, 1])  # in their order
    assert (chosen.images[:, 0, 0, 0].tolist(), list(chosen.unread)) == ([5, 1], ["3.png"])


def test_order_is_kept_over_many_images(tmp_path):
    images = torch.arange(250, dtype=torch.uint8).repeat(3).view(-1, 1, 1, 1)
    result = ImageSet(images.unbind(), 1, tmp_path).preprocessed(Preprocess(2, 1, (0.5,), (0.5,)))
    assert torch.equal(result.images[:, 0, 1, 1], images.flatten())
    assert result.labels is None


@pytest.mark.parametrize(
    "use", [lambda images: images.without_unreadable(), lambda images: images.preprocessed(RULE)]
)
def test_all_unreadable_names_the_folder_and_the_first_reason(tmp_path, use):
    items = write_images(tmp_path, 3)
    for item in items:
        item.path.write_bytes(b"nothing")
    reason = rf"one image in {tmp_path} .*none of 3; the first: .*0.png: cannot identify"
    with pytest.raises(DataError, match=reason):
        use(ImageSet(items, 3, tmp_path))


class TestStack:
    def test_of_equal_shapes_up_to_its_limit(self, on_disk, monkeypatch):
        monkeypatch.setattr(image_set, "STACKED_BYTES", 6 * BYTES)
        stacked = on_disk.stack()
        assert torch.equal(stacked[:, 0, 0, 0], torch.arange(6, dtype=torch.uint8))
        monkeypatch.setattr(image_set, "STACKED_BYTES", 6 * BYTES - 1)
        with pytest.raises(DataError, match="at most 2.01e-06 GiB in all.*found: 0.0 GiB in 6 im"):
            on_disk.stack()

    def test_of_unequal_shapes_is_refused(self, tmp_path):
        images = ImageSet(write_images(tmp_path, size=lambda i: (10, 10 + i // 3)), 3, tmp_path)
        with pytest.raises(DataError, match="of one size.*; found: 10 × 10 and 10 × 11 pixels am"):
            images.stack()

    def test_of_unreadable_images_is_refused(self, damaged):
        with pytest.raises(DataError, match="3.png"):
            damaged.subset([1, 2, 3]).stack()


class TestDigest:
    def test_does_not_depend_on_where_the_folder_lies(self, tmp_path):
        digests = set()
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            digests.add(ImageSet(write_images(tmp_path / name), 3, tmp_path / name).digest())
        assert len(digests) == 1

    def test_tells_changes(self, on_disk):
        items, origin, labels = on_disk.items, on_disk.origin, on_disk.labels
        in_memory = on_disk.without_unreadable()[0]
        digests = [
            on_disk.digest(),
            on_disk.subset([0, 1, 2]).digest(),
            on_disk.subset([1, 0, 2]).digest(),
            ImageSet(items, 1, origin, labels, ("a", "b")).digest(),
            ImageSet(items, 3, origin, 1 - labels, ("a", "b")).digest(),
            ImageSet(items, 3, origin, labels, ("a", "c")).digest(),
            in_memory.digest(),
        ]
        in_memory.items[2][0, 3, 3] ^= 1
        Image.effect_noise((40, 40), 50).save(items[3].path)
        on_disk = replace(on_disk, items=tuple(ImageFile.at(each.path) for each in items))
        digests += [in_memory.digest(), on_disk.digest()]
        assert len(set(digests)) == 9

    def test_stays_when_a_file_goes_after_it_was_found(self, on_disk):
        before = on_disk.digest()
        on_disk.items[2].path.unlink()
        assert on_disk.digest() == before
        reason = "that cannot be opened (No such file or directory)"
        assert on_disk.without_unreadable()[1] == {"2.png": reason}

    def test_of_names_that_are_not_unicode(self, tmp_path):
        path = tmp_path / "b\udcff.png"
        try:
            Image.new("L", (4, 4)).save(path)
        except OSError:
            pytest.skip("this file system takes Unicode names only")
        assert len(ImageSet((ImageFile.at(path),), 1, tmp_path).digest()) == 64


def test_channel_statistics_equal_numpy():
    images = torch.randint(0, 256, (7, 3, 9, 5), dtype=torch.uint8)
    images[:, 1] //= 4
    mean, std = channel_statistics(images)
    reference = images.numpy().astype(np.float64) / 255
    assert mean == pytest.approx(reference.mean(axis=(0, 2, 3)).tolist())
    assert std == pytest.approx(reference.std(axis=(0, 2, 3)).tolist())
    # Of equal pixels it can be divided by.
    assert channel_statistics(images[:1, :1] * 0 + 51)[1] == (1 / 255,)
