"""The digits, and every layout of a folder."""

from typing import get_args

import pytest
from PIL import Image

from edgesearch.data.open_images import SOURCES, open_images
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError


def write(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 100).save(path)


def opened(root, channels=3, **options):
    return open_images(DataSettings(source="folder", root=root, **options), channels)


def names(images):
    return [path.relative_to(images.origin).as_posix() for path in images.items]


def test_every_source_of_the_settings_can_be_opened():
    assert set(SOURCES) == set(get_args(DataSettings.model_fields["source"].annotation))


def test_digits():
    splits = open_images(DataSettings(source="digits"), 1)
    assert (len(splits.train), len(splits.test)) == (1438, 359)
    assert splits.train.class_names == tuple("0123456789")
    pixels = splits.train.stack()
    assert pixels.shape == (1438, 1, 8, 8)
    assert (pixels.min(), pixels.max()) == (0, 255)
    share = splits.test.labels.bincount() / splits.train.labels.bincount()
    assert 0.23 < share.min() < share.max() < 0.27
    colour = open_images(DataSettings(source="digits"), 3).train.load(0)
    assert (colour == splits.train.load(0).expand(3, 8, 8)).all()


def test_what_is_held_out_depends_on_the_seed_alone():
    digits = DataSettings(source="digits")
    digests = [open_images(digits, 1, seed).test.digest() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_splits_are_disjoint_and_complete(tmp_path):
    files = [f"{label}/{i}.png" for label in "ab" for i in range(10)]
    write(tmp_path, *files)
    splits = opened(tmp_path, holdout=0.3)
    assert sorted(names(splits.train) + names(splits.test)) == sorted(files)
    assert splits.test.labels.bincount().tolist() == [3, 3]


@pytest.mark.parametrize(("holdout", "held_out"), [(0.0, 0), (0.5, 2), (0.99, 3)])
def test_share_held_out_never_takes_a_whole_class(tmp_path, holdout, held_out):
    write(tmp_path, "a/1.png", "b/1.png", "b/2.png", "b/3.png", "b/4.png")
    splits = opened(tmp_path, holdout=holdout)
    assert len(splits.test or ()) == held_out
    assert splits.train.labels.bincount().min() >= 1


@pytest.mark.parametrize("test", ["val", "validation", "test"])
def test_split_folders(tmp_path, test):
    write(tmp_path, "train/cat/1.png", "train/dog/1.png", "train/emu/1.png")
    write(tmp_path, f"{test}/dog/2.png", f"{test}/emu/2.png")
    splits = opened(tmp_path)
    assert names(splits.train) == ["cat/1.png", "dog/1.png", "emu/1.png"]
    assert splits.train.class_names == splits.test.class_names == ("cat", "dog", "emu")
    assert splits.test.labels.tolist() == [1, 2]


def test_val_goes_before_test(tmp_path):
    write(tmp_path, "train/1.png", "val/2.png", "test/3.png")
    splits = opened(tmp_path)
    assert names(splits.test) == ["2.png"]
    assert splits.test.labels is None


def test_train_folder_alone_or_as_a_class(tmp_path):
    write(tmp_path, *[f"train/{label}/{i}.png" for label in "ab" for i in range(5)])
    splits = opened(tmp_path)
    assert splits.train.class_names == ("a", "b")
    assert len(splits.test) == 2
    write(tmp_path, "bus/1.png")
    assert opened(tmp_path).train.class_names == ("bus", "train")


def test_labels_need_both_splits_labelled(tmp_path):
    write(tmp_path, "train/1.png", "test/a/2.png", "test/b/3.png")
    splits = opened(tmp_path)
    assert splits.train.labels is splits.test.labels is None


def test_class_that_the_training_split_lacks_is_refused(tmp_path):
    write(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png")
    with pytest.raises(DataError, match=r"val among those of .*train; found: 1 other.s.: c"):
        opened(tmp_path)


def test_flat_folder_in_natural_order(tmp_path):
    write(tmp_path, "img10.png", "img9.png", "img9b.png", "Z.png", "img010.png")
    splits = opened(tmp_path)
    assert names(splits.train) == ["Z.png", "img9.png", "img9b.png", "img010.png", "img10.png"]
    assert splits.train.labels is splits.test is None


def test_classes_in_natural_order_of_their_names(tmp_path):
    write(tmp_path, "10/a.png", "9/b.png", "9/deep/er/c.png")
    train = opened(tmp_path, holdout=0).train
    assert train.class_names == ("9", "10")
    assert names(train) == ["9/b.png", "9/deep/er/c.png", "10/a.png"]
    assert train.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize("files", [("a/1.png", "b/1.png", "2.png"), ("a/1.png", "a/b/2.png")])
def test_images_beside_folders_or_one_folder_make_no_classes(tmp_path, files):
    write(tmp_path, *files)
    train = opened(tmp_path).train
    assert (len(train), train.labels) == (len(files), None)


def test_hidden_and_other_files_are_ignored(tmp_path):
    write(tmp_path, "a/1.PNG", "b/1.jpeg", ".cache/2.png", "a/.hidden.png", ".trash.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    train = opened(tmp_path).train
    assert names(train) == ["a/1.PNG", "b/1.jpeg"]
    assert train.class_names == ("a", "b")


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere", "1.png")
    write(tmp_path / "root", "a/2.png")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    assert names(opened(tmp_path / "root").train) == ["a/2.png", "b/1.png"]


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("none", "folder of images at .*none; found: nothing of that"),
        ("flat/1.png", "folder of images at .*1.png; found: a file"),
        ("empty", "images in .*empty; found: no file that ends in .bmp"),
        ("half", "images in .*half/val; found: no file that ends in .bmp"),
    ],
)
def test_a_folder_without_images_is_refused(tmp_path, root, message):
    write(tmp_path, "flat/1.png", "half/train/1.png")
    for folder in ("empty", "half/val"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "readme.txt").write_text("nothing to see")
    with pytest.raises(DataError, match=message):
        opened(tmp_path / root)
