"""Indices of shards, and what is read through them."""

import gzip
import multiprocessing
import operator
import os
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from edgesearch.data import shards
from edgesearch.data.image_set import ImageSet
from edgesearch.data.shards import index_shard
from edgesearch.errors import DataError


@pytest.fixture
def shard(tmp_path, write_shard):
    return write_shard(tmp_path / "a.tar", {f"{i}.png": 10 * i for i in range(6)})


def set_of(path):
    return ImageSet(tuple(image for image, _ in index_shard(path)), 1, path.parent)


def greys(images):
    return [int(images.load(i)[0, 0, 0]) for i in range(len(images))]


def test_members_are_found_where_tarfile_finds_them(shard):
    with tarfile.open(shard) as archive:
        for image, label in index_shard(shard):
            assert image.read() == archive.extractfile(image.name).read()
            assert label is None
    assert [image.name for image, _ in index_shard(shard)] == [f"{i}.png" for i in range(6)]


def test_labels_of_a_key(tmp_path, write_shard):
    members = {
        "0.cls": b"7\n",
        "0.jpg": 1,
        "in/1.webp": 1,
        "in/1.json": {"label": 3, "url": "somewhere"},
        "2.png": 1,
        "2.json": {"cls": 12},
        "3.seg.png": 1,
        "3.cls": b"4",
        "v1.0.png": 1,
        "v1.0.cls": b"5",
        "v1.1.png": 1,
        "v1.1.cls": b"6",
        "9.json": {"caption": "no label"},
        "9.png": 1,
    }
    found = {
        image.name: label for image, label in index_shard(write_shard(tmp_path / "a", members))
    }
    assert found == {
        "0.jpg": 7,
        "in/1.webp": 3,
        "2.png": 12,
        "3.seg.png": 4,
        "v1.0.png": 5,
        "v1.1.png": 6,
        "9.png": None,
    }


def test_other_members_are_ignored(tmp_path, write_shard):
    path = write_shard(tmp_path / "a.tar", {"a.txt": b"x", "._b.png": b"x", "c.PNG": 1})
    with tarfile.open(path, "a") as archive:
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    assert [image.name for image, _ in index_shard(path)] == ["c.PNG"]


def test_long_names(tmp_path, write_shard):
    names = ["x" * 300 + ".png", "ü" * 80 + ".png"]
    path = write_shard(tmp_path / "a.tar", dict.fromkeys(names, 9))
    assert [image.name for image, _ in index_shard(path)] == names
    assert greys(set_of(path)) == [9, 9]


@pytest.mark.parametrize("content", [b"cat", b"", b"1.5", b"\xff"])
def test_a_label_that_is_no_whole_number(tmp_path, write_shard, content):
    path = write_shard(tmp_path / "a.tar", {"0.png": 1, "0.cls": content})
    with pytest.raises(DataError, match=r"whole number as the label in .*: 0.cls; found: b'"):
        index_shard(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"label": "cat"}, "'cat'"),
        ({"label": 1.0}, "1.0"),
        ({"cls": True}, "True"),
        ({"label": 2**63}, "9223372036854775808"),
        (b"[1", r"b'\[1'"),
        (b"3", "b'3'"),
    ],
)
def test_a_label_in_json_that_is_no_whole_number(tmp_path, write_shard, content, found):
    path = write_shard(tmp_path / "a.tar", {"0.png": 1, "0.json": content})
    with pytest.raises(DataError, match=f"label in .*a.tar: 0.json; found: {found}. Number the"):
        index_shard(path)


def test_every_truncation_is_told_with_the_byte(shard):
    """Whole blocks of zeros at the end are missing without harm as long as one is left."""
    content = shard.read_bytes()
    end = max(image.offset for image, _ in index_shard(shard)) + 512
    assert content[end : end + 512] == bytes(512)
    for length in range(0, end + 512, 100):
        shard.write_bytes(content[:length])
        message = rf"a whole shard at .*a.tar; found: damage at byte {length} of {length}: "
        if length == 0:
            message = "damage at byte 0 of 0: no uncompressed tar file .empty file"
        elif length < 512:
            message = f"damage at byte 0 of {length}: no uncompressed tar file .truncated header"
        with pytest.raises(DataError, match=message.replace(f"{length}", f"{length:,}")):
            index_shard(shard)
    shard.write_bytes(content[: end + 512])
    assert len(index_shard(shard)) == 6


def test_a_damaged_header_is_told_with_its_byte(shard):
    content = bytearray(shard.read_bytes())
    header = index_shard(shard)[3][0].offset - 512
    content[header + 20] ^= 1
    shard.write_bytes(content)
    message = rf"damage at byte {header:,} of {len(content):,}: no header of a member"
    with pytest.raises(DataError, match=message):
        index_shard(shard)


@pytest.mark.parametrize("content", [b"no tar file at all" * 100, gzip.compress(bytes(2000))])
def test_no_tar_file(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match="byte 0 of .*: no uncompressed tar file"):
        index_shard(tmp_path / "a.tar")


def test_a_missing_shard(tmp_path):
    with pytest.raises(DataError, match=r"that can be read at .*b.tar; found: No such file"):
        index_shard(tmp_path / "b.tar")


class TestSeveralArchivesInOneFile:
    """What `cat` makes of shards: each has an end of its own, and zeros behind it."""

    @pytest.fixture
    def joined(self, tmp_path, write_shard):
        parts = [
            write_shard(tmp_path / "1.tar", {"a.png": 1, "a.cls": b"4"}),
            write_shard(tmp_path / "2.tar", {}),
            write_shard(tmp_path / "3.tar", {"b.png": 2, "b.cls": b"5", "c.png": 3, "c.cls": b"6"}),
        ]
        path = tmp_path / "joined.tar"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return path

    def test_are_all_read(self, joined):
        images = set_of(joined)
        assert greys(images) == [1, 2, 3]
        assert [image.name for image in images.items] == ["a.png", "b.png", "c.png"]
        assert [label for _, label in index_shard(joined)] == [4, 5, 6]

    def test_labels_are_those_of_the_same_archive(self, tmp_path, write_shard):
        # Archives of one class each, numbered from the beginning again.
        parts = [
            write_shard(tmp_path / f"{label}.tar", {"1.png": label, "1.cls": str(label).encode()})
            for label in (7, 8)
        ]
        path = tmp_path / "joined.tar"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        assert [label for _, label in index_shard(path)] == greys(set_of(path)) == [7, 8]

    def test_far_apart(self, joined, write_shard, tmp_path):
        with joined.open("ab") as file:
            file.write(bytes(3 << 20))
            file.write(write_shard(tmp_path / "4.tar", {"d.png": 4}).read_bytes())
        assert greys(set_of(joined)) == [1, 2, 3, 4]

    def test_something_else_behind_an_end(self, joined):
        size = joined.stat().st_size
        with joined.open("ab") as file:
            file.write(b"something else" * 100)
        with pytest.raises(DataError, match=f"damage at byte {size:,} of .*: no header of a memb"):
            index_shard(joined)

    def test_the_last_one_is_cut_off(self, joined):
        os.truncate(joined, joined.stat().st_size - 9000)
        with pytest.raises(DataError, match="damage at byte .*: the end of the archive is miss"):
            index_shard(joined)


def test_a_folder_in_place_of_a_shard(tmp_path):
    with pytest.raises(DataError, match="a shard that can be read at .*; found: Is a directory"):
        index_shard(tmp_path)


class TestReading:
    def test_a_damaged_image_names_shard_and_member(self, tmp_path, write_shard):
        path = write_shard(tmp_path / "a.tar", {"0.png": 1, "1.png": b"garbage"})
        images = set_of(path)
        with pytest.raises(DataError, match=r"found: .*a.tar: 1.png \(from byte \d+ on\): cannot"):
            images.load(1)
        readable, skipped = images.without_unreadable()
        assert (greys(readable), skipped) == ([1], 1)

    def test_a_shard_that_was_written_to(self, shard, write_shard):
        images = set_of(shard)
        write_shard(shard, {"other.png": 1})
        with pytest.raises(DataError, match=r"index was made; found: it has been written to"):
            images.load(0)
        assert greys(set_of(shard)) == [1]

    def test_a_shard_that_is_gone(self, shard):
        images = set_of(shard)
        shard.unlink()
        with pytest.raises(DataError, match=r"as it was when its index was made; found: No such"):
            images.load(0)

    def test_a_shard_that_was_cut_off_while_it_was_open(self, shard):
        images = set_of(shard)
        images.load(0)
        offset = images.items[5].offset
        os.truncate(shard, offset + 3)
        with pytest.raises(DataError, match=f"found: it ends at byte {offset + 3}. Leave"):
            images.load(5)
        assert images.load(0).unique().tolist() == [0]

    def test_no_more_than_some_shards_are_kept_open(self, tmp_path, write_shard):
        paths = [write_shard(tmp_path / f"{i}.tar", {"a.png": i}) for i in range(140)]
        images = [set_of(path) for path in paths]
        before = len(os.listdir("/proc/self/fd"))
        assert [greys(each) for each in images * 2] == [[i] for i in range(140)] * 2
        assert len(os.listdir("/proc/self/fd")) - before <= shards.OPEN_SHARDS

    def test_threads_do_not_disturb_each_other(self, tmp_path, write_shard):
        path = write_shard(tmp_path / "a.tar", {f"{i}.png": i for i in range(200)})
        images = set_of(path)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i: int(images.load(i)[0, 0, 0]), list(range(200)) * 3))
        assert found == list(range(200)) * 3

    def test_threads_that_open_a_shard_at_once(self, tmp_path, write_shard):
        for number in range(30):
            path = write_shard(tmp_path / f"{number}.tar", {f"{i}.png": i for i in range(8)})
            images, together = set_of(path), Barrier(8)

            def load(i, images=images, together=together):
                together.wait()
                return int(images.load(i)[0, 0, 0])

            with ThreadPoolExecutor(8) as pool:
                assert list(pool.map(load, range(8))) == list(range(8))

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_another_process_reads_the_same(self, shard, method):
        images = set_of(shard)
        here = images.load(4)  # the shard is open when the process starts
        with multiprocessing.get_context(method).Pool(1) as pool:
            (there,) = pool.map(operator.methodcaller("load", 4), [images])
        assert there.tolist() == here.tolist()
        assert images.load(5).unique().tolist() == [50]


class TestCache:
    def test_a_kept_index_is_used(self, shard, tmp_path, monkeypatch):
        cache = tmp_path / "cache"
        made = index_shard(shard, cache)
        assert made == index_shard(shard)
        monkeypatch.setattr(shards, "_rows", None)  # cannot be called
        assert index_shard(shard, cache) == made

    def test_a_changed_shard_gets_a_new_index(self, shard, tmp_path, write_shard):
        cache = tmp_path / "cache"
        index_shard(shard, cache)
        write_shard(shard, {"new.png": 1})
        assert [image.name for image, _ in index_shard(shard, cache)] == ["new.png"]
        copy = tmp_path / "b.tar"
        shutil.copy2(shard, copy)
        assert index_shard(copy, cache)[0][0].shard.path == copy

    def test_a_damaged_index_is_made_again(self, shard, tmp_path):
        cache = tmp_path / "cache"
        made = index_shard(shard, cache)
        (kept,) = cache.iterdir()
        kept.write_bytes(kept.read_bytes()[:30])
        assert index_shard(shard, cache) == made

    def test_a_folder_that_takes_no_files(self, shard, tmp_path):
        (tmp_path / "cache").write_text("a file")
        assert len(index_shard(shard, tmp_path / "cache")) == 6
