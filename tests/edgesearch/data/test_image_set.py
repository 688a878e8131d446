"""Sets of images, on disk and in memory, with unreadable ones among them."""

import numpy as np
import pytest
import torch
from PIL import Image

from edgesearch.data.image_set import ImageSet, channel_statistics
from edgesearch.data.preprocess import Preprocess
from edgesearch.errors import DataError

RULE = Preprocess(8, 3, (0.5,) * 3, (0.25,) * 3)


def write_images(folder, count=6, size=lambda i: (10, 12)):
    """PNG files whose pixels all equal their number."""
    paths = tuple(folder / f"{i}.png" for i in range(count))
    for i, path in enumerate(paths):
        Image.new("L", size(i), i).save(path)
    return paths


@pytest.fixture
def on_disk(tmp_path):
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    return ImageSet(write_images(tmp_path), 3, tmp_path, labels, ("a", "b"))


@pytest.fixture
def damaged(on_disk):
    on_disk.items[0].write_bytes(b"")
    on_disk.items[3].write_bytes(on_disk.items[3].read_bytes()[:40])
    return on_disk


def test_load_gives_pixels_from_files_and_from_memory(on_disk):
    assert len(on_disk) == 6
    assert on_disk.load(4).shape == (3, 12, 10)
    assert on_disk.load(4).unique().tolist() == [4]
    in_memory, skipped = on_disk.without_unreadable()
    assert skipped == 0
    assert torch.equal(in_memory.load(4), on_disk.load(4))


def test_subset_keeps_images_and_labels_together(on_disk):
    subset = on_disk.subset([5, 0])
    assert [subset.load(i)[0, 0, 0].item() for i in range(2)] == [5, 0]
    assert subset.labels.tolist() == [1, 0]
    assert subset.class_names == ("a", "b")


def test_unreadable_images_are_left_out_with_their_labels(damaged):
    readable, skipped = damaged.without_unreadable()
    assert skipped == 2
    assert readable.labels.tolist() == [1, 0, 0, 1]
    assert [image[0, 0, 0].item() for image in readable.items] == [1, 2, 4, 5]


def test_images_that_do_not_fit_into_memory_stay_files(damaged):
    bytes_of_all = 4 * 3 * 12 * 10
    in_memory, _ = damaged.without_unreadable(bytes_of_all)
    assert all(isinstance(item, torch.Tensor) for item in in_memory.items)
    on_disk, skipped = damaged.without_unreadable(bytes_of_all - 1)
    assert on_disk.items == tuple(damaged.items[i] for i in (1, 2, 4, 5))
    assert skipped == 2


def test_preprocessed_skips_unreadable_images(damaged):
    result = damaged.preprocessed(RULE)
    assert result.images.shape == (4, 3, 8, 8)
    assert result.images.dtype == torch.uint8
    assert result.images[:, 0, 0, 0].tolist() == [1, 2, 4, 5]
    assert result.labels.tolist() == [1, 0, 0, 1]
    assert result.skipped == 2


def test_preprocessed_in_the_order_of_the_indices(damaged):
    result = damaged.preprocessed(RULE, [5, 3, 1])
    assert result.images[:, 0, 0, 0].tolist() == [5, 1]
    assert result.skipped == 1


def test_order_is_kept_over_many_images(tmp_path):
    images = torch.arange(250, dtype=torch.uint8).repeat(3).view(-1, 1, 1, 1)
    image_set = ImageSet(images.unbind(), 1, tmp_path)
    result = image_set.preprocessed(Preprocess(2, 1, (0.5,), (0.5,)))
    assert torch.equal(result.images[:, 0, 1, 1], images.flatten())
    assert result.labels is None


@pytest.mark.parametrize(
    "use", [lambda images: images.without_unreadable(), lambda images: images.preprocessed(RULE)]
)
def test_all_unreadable_names_the_folder_and_the_first_reason(tmp_path, use):
    paths = write_images(tmp_path, 3)
    for path in paths:
        path.write_bytes(b"nothing")
    images = ImageSet(paths, 3, tmp_path)
    reason = rf"one image in {tmp_path} .*none of 3; the first: .*0.png: cannot identify"
    with pytest.raises(DataError, match=reason):
        use(images)


def test_stack_of_equal_shapes(on_disk):
    assert torch.equal(on_disk.stack()[:, 0, 0, 0], torch.arange(6, dtype=torch.uint8))


def test_no_stack_of_unequal_shapes(tmp_path):
    images = ImageSet(write_images(tmp_path, size=lambda i: (10, 10 + i // 3)), 3, tmp_path)
    with pytest.raises(DataError, match="of one size.*; found: 10 × 10 and 10 × 11 pixels am"):
        images.stack()


def test_no_stack_beyond_its_limit(on_disk):
    with pytest.raises(DataError, match="at most 2.01e-06 GiB in all.*; found: 0.0 GiB in 6 im"):
        on_disk.stack(6 * 3 * 12 * 10 - 1)
    assert len(on_disk.stack(6 * 3 * 12 * 10)) == 6


def test_stack_of_unreadable_images_is_refused(damaged):
    with pytest.raises(DataError, match="3.png"):
        damaged.subset([1, 2, 3]).stack()


def test_digest_does_not_depend_on_where_the_folder_lies(tmp_path):
    digests = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        digests.add(ImageSet(write_images(tmp_path / name), 3, tmp_path / name).digest())
    assert len(digests) == 1


def test_digest_tells_changes(on_disk):
    digests = {
        on_disk.digest(),
        on_disk.subset([0, 1, 2]).digest(),
        on_disk.subset([1, 0, 2]).digest(),
        ImageSet(on_disk.items, 1, on_disk.origin, on_disk.labels, ("a", "b")).digest(),
        ImageSet(on_disk.items, 3, on_disk.origin, 1 - on_disk.labels, ("a", "b")).digest(),
        ImageSet(on_disk.items, 3, on_disk.origin, on_disk.labels, ("a", "c")).digest(),
        on_disk.without_unreadable()[0].digest(),
    }
    Image.effect_noise((40, 40), 50).save(on_disk.items[3])
    digests.add(on_disk.digest())
    assert len(digests) == 8


def test_digest_of_pixels_tells_one_changed_bit(tmp_path):
    pixels = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    before = ImageSet(pixels.clone().unbind(), 1, tmp_path).digest()
    assert ImageSet(pixels.clone().unbind(), 1, tmp_path).digest() == before
    pixels[2, 0, 3, 3] = 1
    assert ImageSet(pixels.unbind(), 1, tmp_path).digest() != before


def test_digest_of_a_missing_file_is_refused(on_disk):
    on_disk.items[2].unlink()
    with pytest.raises(DataError, match=r"2.png, which was there before; found: No such file"):
        on_disk.digest()


def test_digest_of_names_that_are_not_unicode(tmp_path):
    path = tmp_path / "b\udcff.png"
    try:
        Image.new("L", (4, 4)).save(path)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert len(ImageSet((path,), 1, tmp_path).digest()) == 64


def test_channel_statistics_equal_numpy():
    images = torch.randint(0, 256, (7, 3, 9, 5), dtype=torch.uint8)
    images[:, 1] //= 4
    mean, std = channel_statistics(images)
    reference = images.numpy().astype(np.float64) / 255
    assert mean == pytest.approx(reference.mean(axis=(0, 2, 3)).tolist())
    assert std == pytest.approx(reference.std(axis=(0, 2, 3)).tolist())


def test_channel_statistics_of_equal_pixels_can_be_divided_by():
    mean, std = channel_statistics(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8))
    assert mean == pytest.approx([0.2])
    assert std == (1 / 255,)
