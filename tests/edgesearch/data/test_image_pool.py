"""The images of a run: the same for the same seed, whatever the folder looks like."""

import pytest
import torch
from PIL import Image
from torchvision import datasets

from edgesearch.data import image_pool
from edgesearch.data.image_pool import ImagePool
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError

DIGITS = DataSettings(source="digits")


def write_images(folder, classes=("",), count=10):
    """Grey images whose pixels all equal their number."""
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            grey = index * 100 + number * 5
            Image.new("L", (12, 10), grey).save(folder / name / f"{number}.png")
    return DataSettings(source="folder", root=folder, mean=[0.0], std=[1.0])


def greys(images):
    """The pixel values that images were written with."""
    return [round(float(image[0, 4, 4]) * 255) for image in images]


@pytest.fixture(scope="module")
def digits():
    return ImagePool(DIGITS, 1, 0)


def test_samples_are_what_a_network_reads(digits):
    images = digits.sample(64, 0, 500)
    assert images.shape == (500, 1, 64, 64)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert float(images.mean()) == pytest.approx(0, abs=0.05)
    assert float(images.std()) == pytest.approx(1, abs=0.05)
    assert (digits.has_labels, digits.unreadable) == (True, ())


def test_given_statistics_are_used():
    given = DataSettings(source="digits", mean=[0.0], std=[0.5])
    images = ImagePool(given, 1, 0).sample(8, 0, 20)
    assert float(images.min()) == 0
    assert float(images.max()) == pytest.approx(2)


def test_same_seed_same_images(digits):
    again, other = (ImagePool(DIGITS, 1, seed) for seed in (0, 1))
    assert torch.equal(digits.sample(16, 0, 30), again.sample(16, 0, 30))
    assert not torch.equal(digits.sample(16, 0, 30), other.sample(16, 0, 30))
    assert digits.digest == again.digest != other.digest


def test_samples_go_on_where_others_end(digits):
    whole = digits.sample(16, 0, 30)
    assert torch.equal(whole[10:], digits.sample(16, 10, 20))
    assert torch.equal(whole[5:20], digits.sample(16, 0, 30, part=(5, 20)))


def test_resolutions_show_the_same_images(digits):
    small, large = digits.sample(8, 0, 50), digits.sample(16, 0, 50)
    shrunk = torch.nn.functional.interpolate(large, (8, 8), mode="area")
    away_from_others = (shrunk - small.roll(1, dims=0)).abs().mean()
    assert float((shrunk - small).abs().mean()) < float(away_from_others) / 3


def test_labelled_images_are_train_and_test(digits):
    images = digits.labelled(8)
    assert images.train.shape == (len(digits.train), 1, 8, 8)
    assert images.test.shape == (len(digits.test), 1, 8, 8)
    assert len(images.train) + len(images.test) == 1797
    assert images.train_labels.unique().tolist() == list(range(10))
    assert images.train.dtype == torch.uint8
    assert torch.equal(images.prepare(images.train), digits.preprocess(8).normalise(images.train))
    part = digits.labelled(8, 100, 50)
    assert (len(part.train), len(part.test)) == (100, 50)
    assert torch.equal(part.train, images.train[:100])
    assert torch.equal(part.test_labels, images.test_labels[:50])


def test_labels_stay_with_their_images(tmp_path):
    images = ImagePool(write_images(tmp_path, ("a", "b")), 1, 0).labelled(8)
    for pixels, labels in (
        (images.train, images.train_labels),
        (images.test, images.test_labels),
    ):
        assert [int(grey >= 100) for grey in greys(images.prepare(pixels))] == labels.tolist()


def test_a_flat_folder_has_no_labels(tmp_path):
    pool = ImagePool(write_images(tmp_path), 1, 0)
    assert not pool.has_labels
    assert pool.test is None
    assert sorted(greys(pool.sample(8, 0, 10))) == list(range(0, 50, 5))
    with pytest.raises(DataError, match=f"images with classes in {tmp_path}, .*found: no classes"):
        pool.labelled(8)


def test_unreadable_images_are_counted_and_left_out(tmp_path):
    source = write_images(tmp_path)
    (tmp_path / "3.png").write_bytes(b"nothing")
    (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()[:50])
    pool = ImagePool(source, 1, 0)
    assert sorted(greys(pool.sample(8, 0, 10))) == [0, 5, 10, 20, 25, 30, 40, 45]
    assert [str(each) for each in pool.unreadable] == [
        "1 with the name of an image and other content (3.png)",
        "1 damaged (7.png)",
    ]
    assert pool.contents.train == 8


def test_unreadable_images_of_both_splits_count(tmp_path):
    source = write_images(tmp_path, ("train/a", "train/b", "test/a", "test/b"), 5)
    for name in ("train/a/0.png", "test/b/4.png"):
        (tmp_path / name).write_bytes(b"nothing")
    pool = ImagePool(source, 1, 0)
    images = pool.labelled(8)
    assert (len(images.train), len(images.test)) == (9, 9)
    (left_out,) = pool.contents.left_out
    assert (left_out.count, left_out.first) == (2, "train/a/0.png")
    assert (pool.contents.train, pool.contents.test) == (9, 9)


def test_of_a_very_large_set_unreadable_images_are_counted_as_they_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(image_pool, "DECODE_AT_ONCE", 5)
    source = write_images(tmp_path)
    (tmp_path / "3.png").write_bytes(b"nothing")
    pool = ImagePool(source, 1, 0)
    assert (len(pool.train), pool.unreadable) == (10, ())
    for resolution in (8, 16):  # each image counts once
        assert (len(pool.sample(resolution, 0, 10)), pool.unreadable[0].count) == (9, 1)
    asked = ImagePool(source, 1, 0, decode_all=True)
    assert (len(asked.train), asked.unreadable[0].count) == (9, 1)


def test_a_class_without_any_readable_image_is_an_error(tmp_path):
    source = write_images(tmp_path, ("a", "b", "c"), 2)
    for path in (tmp_path / "b").iterdir():
        path.write_bytes(b"nothing")
    message = r"of each class in .*found: none of b; .*: 2 with the name of .* \(first b/"
    with pytest.raises(DataError, match=message):
        ImagePool(source, 1, 0).sample(8, 0, 1)
    allowed = source.model_copy(update={"allow_missing_classes": True, "holdout": 0.0})
    assert len(ImagePool(allowed, 1, 0).sample(8, 0, 9)) == 4


def test_images_without_a_class_are_for_pre_training_only(tmp_path):
    source = write_images(tmp_path, ("a", "b"))
    Image.new("L", (12, 10), 250).save(tmp_path / "loose.png")
    pool = ImagePool(source, 1, 0)
    assert 250 in greys(pool.sample(8, 0, 100))
    images = pool.labelled(8)
    assert (len(images.train), len(images.test)) == (16, 4)
    assert min(images.train_labels.tolist()) == min(pool.readable_labels.tolist()) == 0


def test_nothing_readable_is_an_error(tmp_path):
    source = write_images(tmp_path, count=2)
    for path in tmp_path.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=f"at least one image in {tmp_path} .*none of 2"):
        ImagePool(source, 1, 0).sample(8, 0, 1)


def test_fewer_images_than_wanted(tmp_path):
    pool = ImagePool(write_images(tmp_path), 1, 0)
    assert len(pool.sample(8, 6, 100)) == 4
    message = "more than 10 images for calibration and search; found: 10 images. Add images"
    with pytest.raises(DataError, match=message):
        pool.sample(8, 10, 5)


def test_a_moved_folder_holds_the_same_images(tmp_path):
    settings = [write_images(tmp_path / name) for name in ("one", "two")]
    pools = [ImagePool(each, 1, 0) for each in settings]
    assert pools[0].digest == pools[1].digest
    assert torch.equal(*(pool.sample(8, 0, 10) for pool in pools))
    assert settings[0].decisive("data") == settings[1].decisive("data")


def test_three_channels_of_grey_images(tmp_path):
    write_images(tmp_path)
    pool = ImagePool(DataSettings(source="folder", root=tmp_path), 3, 0)
    assert pool.sample(8, 0, 4).shape == (4, 3, 8, 8)
    assert len(pool.preprocess(8).mean) == 3


class HalfLabelled(datasets.VisionDataset):
    """As STL-10: a split without labels, and two with them."""

    def __init__(self, root, split="train"):
        super().__init__(root)
        self.split = datasets.utils.verify_str_arg(split, "split", ("unlabeled", "train", "test"))
        self.classes = ["dark", "light"]

    def __len__(self):
        return {"unlabeled": 9, "train": 6, "test": 4}[self.split]

    def __getitem__(self, index):
        label = -1 if self.split == "unlabeled" else index % 2
        return Image.new("L", (8, 8), 100 * (label + 1) + index), label


def test_accuracies_where_training_images_have_no_labels(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "HalfLabelled", HalfLabelled, raising=False)
    settings = {"root": tmp_path, "name": "HalfLabelled", "mean": [0.0], "std": [1.0]}
    pool = ImagePool(DataSettings(source="torchvision", **settings), 1, 0)
    assert pool.has_labels
    assert pool.class_names == ("dark", "light")
    assert len(pool.sample(8, 0, 100)) == 9
    images = pool.labelled(8)
    assert (len(images.train), len(images.test)) == (6, 4)
    assert (images.train[:, 0, 0, 0] >= 200).long().tolist() == images.train_labels.tolist()
    assert pool.readable_labels.tolist() == [0, 1] * 3
    assert len(pool.digest) == 3 * 64
