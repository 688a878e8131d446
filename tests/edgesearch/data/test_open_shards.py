"""Shards of a folder or a pattern, and their splits."""

import pytest
import torch

from edgesearch.data.open_images import open_images
from edgesearch.data.open_shards import find_shards
from edgesearch.errors import DataError


@pytest.fixture
def write(tmp_path, write_shard):
    """Shards of four images each, those of class `i % classes`, named by the shard's number."""

    def write(*names, classes=2, offset=0):
        for number, name in enumerate(names):
            members = {}
            for i in range(4):
                members[f"{i}.png"] = 10 * number + i
                if classes:
                    members[f"{i}.cls"] = str(offset + i % classes).encode()
            write_shard(tmp_path / name, members)
        return tmp_path

    return write


def greys(images):
    return [int(images.load(i)[0, 0, 0]) for i in range(len(images))]


def test_a_folder_of_shards_in_natural_order(write):
    root = write("s10.tar", "s9.tar", "in/s1.tar", ".hidden.tar", "s8.tar.gz", classes=0)
    assert [path.name for path in find_shards(root)] == ["s1.tar", "s9.tar", "s10.tar"]
    splits = open_images("shards", root, 3)
    assert greys(splits.train) == [20, 21, 22, 23, 10, 11, 12, 13, 0, 1, 2, 3]
    assert splits.train.load(0).shape == (3, 5, 6)
    assert splits.train.labels is None
    assert splits.test is None


def test_a_share_of_each_class_is_held_out_without_splits(write):
    splits = open_images("shards", write("a.tar", "b.tar"), 1, holdout=0.5)
    assert splits.train.labels.bincount().tolist() == [2, 2]
    assert splits.test.labels.bincount().tolist() == [2, 2]
    assert splits.train.class_names == ("0", "1")
    assert sorted(greys(splits.train) + greys(splits.test)) == [0, 1, 2, 3, 10, 11, 12, 13]
    for images in (splits.train, splits.test):
        assert [grey % 10 % 2 for grey in greys(images)] == images.labels.tolist()


@pytest.mark.parametrize(
    "names",
    [
        ("train-000.tar", "val-000.tar"),
        ("train_0.tar", "Validation.tar"),
        ("train/0.tar", "test/0.tar"),
        ("train/part/0.tar", "val/part/0.tar"),
        ("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"),
    ],
)
def test_splits_by_name(write, names):
    splits = open_images("shards", write(*names), 1)
    assert greys(splits.train) == [0, 1, 2, 3]
    assert greys(splits.test) == [10, 11, 12, 13]


def test_val_goes_before_test(write):
    splits = open_images("shards", write("train-0.tar", "val-0.tar", "test-0.tar"), 1)
    assert greys(splits.test) == [10, 11, 12, 13]


@pytest.mark.parametrize("names", [("train-0.tar", "trainval.tar"), ("testimony.tar", "train.tar")])
def test_names_that_make_no_two_splits(write, names):
    splits = open_images("shards", write(*names), 1, holdout=0)
    assert len(splits.train) == 8
    assert splits.test is None


def test_numbers_of_classes_become_names(write):
    images = open_images("shards", write("a.tar", offset=41), 1, holdout=0).train
    assert images.class_names == ("41", "42")
    assert images.labels.tolist() == [0, 1, 0, 1]


def test_labels_mean_the_same_in_both_splits(write, write_shard):
    root = write("train-0.tar", classes=3, offset=5)
    write_shard(root / "val-0.tar", {"a.png": 1, "a.cls": b"7", "b.png": 2, "b.cls": b"5"})
    splits = open_images("shards", root, 1)
    assert splits.test.class_names == splits.train.class_names == ("5", "6", "7")
    assert splits.test.labels.tolist() == [2, 0]


def test_a_class_that_the_training_split_lacks(write, write_shard):
    root = write("train-0.tar")
    write_shard(root / "val-0.tar", {"a.png": 1, "a.cls": b"9"})
    with pytest.raises(DataError, match="1 other.s.: 9"):
        open_images("shards", root, 1)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("train-*.tar", ["train-08.tar", "train-09.tar", "train-10.tar"]),
        ("train-{09..10}.tar", ["train-09.tar", "train-10.tar"]),
        ("{train,val}-08.tar", ["train-08.tar", "val-08.tar"]),
        ("{train-{08..09},val-08}.tar", ["train-08.tar", "train-09.tar", "val-08.tar"]),
        ("train-0[89].tar", ["train-08.tar", "train-09.tar"]),
        ("val-08.tar", ["val-08.tar"]),
    ],
)
def test_patterns(write, pattern, expected):
    root = write("train-08.tar", "train-09.tar", "train-10.tar", "val-08.tar", classes=0)
    assert [path.name for path in find_shards(root / pattern)] == expected
    train = [name for name in expected if name.startswith("train")] or expected
    assert len(open_images("shards", root / pattern, 1).train) == 4 * len(train)


def test_a_name_with_brackets_that_is_there_is_no_pattern(write):
    root = write("set[1]/a.tar", "set[1]/b.tar", classes=0)
    assert [p.name for p in find_shards(root / "set[1]" / "a.tar")] == ["a.tar"]


def test_a_pattern_of_both_splits(write):
    root = write("a/train-0.tar", "b/val-0.tar")
    splits = open_images("shards", root / "{a/train,b/val}-*.tar", 1)
    assert (greys(splits.train), greys(splits.test)) == ([0, 1, 2, 3], [10, 11, 12, 13])


def test_a_shard_that_is_named_but_missing(write):
    root = write("train-0.tar")
    with pytest.raises(DataError, match=r"read at .*train-1.tar; found: No such file"):
        open_images("shards", root / "train-{0..1}.tar", 1)


@pytest.mark.parametrize(
    ("root", "found"),
    [("", "no file that ends in .tar"), ("none-*.tar", "no file of that name")],
)
def test_no_shards(tmp_path, root, found):
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=f"shards .*not compressed.* at {tmp_path}.*; found: {found}"
    ):
        open_images("shards", tmp_path / root, 1)


def test_a_missing_folder(tmp_path):
    with pytest.raises(DataError, match="that can be read at .*nowhere; found: No such file"):
        open_images("shards", tmp_path / "nowhere", 1)


def test_no_images(tmp_path, write_shard):
    write_shard(tmp_path / "a.tar", {"a.txt": b"words"})
    with pytest.raises(DataError, match=r"images in the 1 shard.s. in .*; found: no member with"):
        open_images("shards", tmp_path, 1)


def test_labels_for_some_images_only(tmp_path, write_shard):
    write_shard(tmp_path / "a.tar", {"0.png": 1, "0.cls": b"0", "1.png": 1, "2.png": 1})
    with pytest.raises(DataError, match=r"or for none; found: 2 of 3 without, such as .*: 1.png"):
        open_images("shards", tmp_path, 1)


def test_a_kept_index_is_used_again(write, tmp_path):
    root, cache = write("a.tar", "b.tar"), tmp_path / "cache"
    first, again, without = (
        open_images("shards", root, 1, cache_dir=folder) for folder in (cache, cache, None)
    )
    assert len(list(cache.iterdir())) == 2
    assert first.train.items == again.train.items == without.train.items
    assert torch.equal(first.train.labels, again.train.labels)


class TestDigest:
    def test_does_not_depend_on_where_the_shards_lie(self, tmp_path, write_shard):
        digests = set()
        for folder in ("one", "two"):
            write_shard(tmp_path / folder / "a.tar", {"0.png": 1, "1.png": 2})
            digests.add(open_images("shards", tmp_path / folder, 1).train.digest())
        assert len(digests) == 1

    def test_tells_changes(self, tmp_path, write_shard):
        digests = set()
        for members in (
            {"0.png": 1, "1.png": 2},
            {"0.png": 1, "2.png": 2},
            {"0.png": 1, "1.png": b"longer than a PNG of one value is" * 9},
            {"0.png": 1},
            {"0.png": 1, "1.png": 2, "0.cls": b"0", "1.cls": b"1"},
            {"0.png": 1, "1.png": 2, "0.cls": b"1", "1.cls": b"0"},
        ):
            write_shard(tmp_path / "a.tar", members)
            digests.add(open_images("shards", tmp_path, 1, holdout=0).train.digest())
        (tmp_path / "a.tar").rename(tmp_path / "b.tar")
        digests.add(open_images("shards", tmp_path, 1, holdout=0).train.digest())
        assert len(digests) == 7
