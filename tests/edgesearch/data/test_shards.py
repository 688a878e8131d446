"""Shards: their splits and indices, and what is read through them."""

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
from edgesearch.data.open_images import nothing_is_output, open_images
from edgesearch.data.settings import DataSettings
from edgesearch.data.shards import find_shards, index_shard
from edgesearch.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/shards"


def test_shards_are_read_where_nothing_can_be_cached(shard, tmp_path, monkeypatch):
    monkeypatch.delenv("EDGESEARCH_CACHE")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(index_shard(shard)[0]) == 6


@pytest.fixture
def shard(tmp_path, write_shard):
    return write_shard(tmp_path / "a.tar", {f"{i}.png": 10 * i for i in range(6)})


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
            write_shard(tmp_path / "root" / name, members)
        return tmp_path / "root"

    return write


def opened(root, channels=1, **options):
    return open_images(DataSettings(source="shards", root=root, **options), channels)


def found(root):
    return find_shards(root, nothing_is_output)[0]


def set_of(path):
    return ImageSet(tuple(image for image, _ in index_shard(path).images), 1, path.parent)


def greys(images):
    return [int(images.load(i)[0, 0, 0]) for i in range(len(images))]


class TestOpening:
    def test_a_folder_of_shards_in_natural_order(self, write):
        root = write("s10.tar", "s9.tar", "in/s1.tar", ".hidden.tar", "s8.tar.gz", classes=0)
        assert [path.name for path in found(root)] == ["s1.tar", "s9.tar", "s10.tar"]
        splits = opened(root, 3)
        assert greys(splits.train) == [20, 21, 22, 23, 10, 11, 12, 13, 0, 1, 2, 3]
        assert splits.train.load(0).shape == (3, 5, 6)
        assert splits.train.labels is splits.test is None

    def test_a_share_of_each_class_is_held_out_without_splits(self, write):
        splits = opened(write("a.tar", "b.tar", offset=41), holdout=0.5)
        assert splits.train.class_names == ("41", "42")
        assert sorted(greys(splits.train) + greys(splits.test)) == [0, 1, 2, 3, 10, 11, 12, 13]
        for images in (splits.train, splits.test):
            assert images.labels.bincount().tolist() == [2, 2]
            assert [grey % 10 % 2 for grey in greys(images)] == images.labels.tolist()

    @pytest.mark.parametrize(
        "names",
        [
            ("train_0.tar", "Validation.tar"),
            ("train/part/0.tar", "test/part/0.tar"),
            ("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"),
            ("Training-0.tar", "valid-0.tar"),
            ("train_set/0.tar", "eval_0.tar"),
        ],
    )
    def test_splits_by_name(self, write, names):
        splits = opened(write(*names))
        assert (greys(splits.train), greys(splits.test)) == ([0, 1, 2, 3], [10, 11, 12, 13])

    def test_shards_of_no_split_in_use_are_told(self, write):
        splits = opened(write("train-0.tar", "valid-0.tar", "test-0.tar", "more.tar"))
        assert (greys(splits.train), greys(splits.test)) == ([0, 1, 2, 3], [20, 21, 22, 23])
        assert [str(each) for each in splits.left_out] == [
            "4 outside of the training and test folders (first more.tar/0.png)",
            "4 in shards named valid, which is not used (first valid-0.tar/0.png)",
        ]

    @pytest.mark.parametrize(
        "names", [("train-0.tar", "trainval.tar"), ("testimony.tar", "train.tar")]
    )
    def test_names_that_make_no_two_splits(self, write, names):
        splits = opened(write(*names), holdout=0)
        assert (len(splits.train), splits.test) == (8, None)

    def test_labels_mean_the_same_in_both_splits(self, write, write_shard):
        root = write("train-0.tar", classes=3, offset=5)
        write_shard(root / "val-0.tar", {"a.png": 1, "a.cls": b"7", "b.png": 2, "b.cls": b"5"})
        splits = opened(root)
        assert splits.test.class_names == splits.train.class_names == ("5", "6", "7")
        assert splits.test.labels.tolist() == [2, 0]
        write_shard(root / "val-0.tar", {"a.png": 1, "a.cls": b"9", "b.png": 2, "b.cls": b"5"})
        with pytest.raises(DataError, match="1 other.s.: 9"):
            opened(root)

    @pytest.mark.parametrize(
        ("label", "names"),
        [
            (lambda i: {f"{i}.png": i, f"{i}.txt": b"cat\n" if i % 2 else b"dog"}, ("cat", "dog")),
            (lambda i: {f"{i}.png": i, f"{i}.cls": b"a b" if i % 2 else b"c"}, ("a b", "c")),
            (lambda i: {f"{i}.png": i, f"{i}.json": {"label": "xy"[i % 2]}}, ("x", "y")),
            (lambda i: {f"{i}.png": i, f"{i}.txt": f"photo {i}".encode()}, ()),  # captions
            (lambda i: {f"./set/{'ab'[i % 2]}/{i}.png": i}, ("a", "b")),
            (lambda i: {f"{'ab'[i % 2]}/{i}.png": i, f"{'ab'[i % 2]}/{i}.cls": b"12"[:1]}, ()),
        ],
    )
    def test_classes_by_texts_or_by_folders_inside(self, tmp_path, write_shard, label, names):
        members = {}
        for i in range(8):
            members |= label(i)
        write_shard(tmp_path / "root/a.tar", members)
        splits = opened(tmp_path / "root", holdout=0)
        assert splits.train.class_names == names
        if names:
            assert len(set(splits.train.labels[::2].tolist())) == 1
            assert len(set(splits.train.labels[1::2].tolist())) == 1
        else:
            assert splits.no_labels

    def test_splits_and_classes_inside_of_shards(self, tmp_path, write_shard):
        for split in ("train", "test"):
            members = {f"{split}/{name}/{i}.png": i for name in "ab" for i in range(3)}
            write_shard(tmp_path / "apart" / f"{split}.tar", members)
            write_shard(tmp_path / "together" / f"{split[:2]}.tar", members)
        for root in ("apart", "together"):
            splits = opened(tmp_path / root)
            assert splits.train.class_names == splits.test.class_names == ("a", "b")
            assert splits.test.labels.tolist() == [0, 0, 0, 1, 1, 1]

    def test_what_is_left_out_is_counted(self, write, write_shard):
        root = write("a.tar", "b.tar")
        (root / "c.tar.gz").write_bytes(b"")
        members = {"1.png": 1, "1.cls": b"0", "2": 2, "3.heic": b"x", "4.md": b"x", "5.png": b""}
        write_shard(root / "d.tar", members)
        splits = opened(root)
        assert [str(each) for each in splits.left_out] == [
            "1 packed, which cannot be read in place: unpack to .tar (c.tar.gz)",
            "1 in HEIC, which needs `pip install pillow-heif` (d.tar/3.heic)",
            "1 of another type (d.tar/4.md)",
            "1 empty (d.tar/5.png)",
        ]
        assert len(splits.train.without_class) == 1  # d.tar/2

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("train-*.tar", ["train-08.tar", "train-09.tar", "train-10.tar"]),
            ("train-{09..10}.tar", ["train-09.tar", "train-10.tar"]),
            ("{train-{08..09},val-08}.tar", ["train-08.tar", "train-09.tar", "val-08.tar"]),
            ("train-0[89].tar", ["train-08.tar", "train-09.tar"]),
            ("val-08.tar", ["val-08.tar"]),
            ("set[1]/a.tar", ["a.tar"]),  # a name that is there is no pattern
        ],
    )
    def test_patterns(self, write, pattern, expected):
        root = write("train-08.tar", "train-09.tar", "train-10.tar", "val-08.tar", "set[1]/a.tar")
        assert [path.name for path in found(root / pattern)] == expected

    def test_a_pattern_of_both_splits(self, write):
        root = write("a/train-0.tar", "b/val-0.tar")
        splits = opened(root / "{a/train,b/val}-*.tar")
        assert (greys(splits.train), greys(splits.test)) == ([0, 1, 2, 3], [10, 11, 12, 13])

    @pytest.mark.parametrize(
        ("root", "message"),
        [
            ("train-{0..1}.tar", "read at .*train-1.tar; found: No such file"),
            ("nowhere", "that can be read at .*nowhere; found: No such file"),
            ("none-*.tar", "shards .*not compressed.* at .*; found: no file of that name"),
            ("empty", "shards .*not compressed.* at .*; found: no file that ends in .tar"),
            ("words", r"images in the 1 shard.s. in .*; found: no member that is an image"),
        ],
    )
    def test_what_is_not_there_is_refused(self, write, write_shard, root, message):
        folder = write("train-0.tar")
        (folder / "empty").mkdir()
        write_shard(folder / "words/a.tar", {"a.txt": b"words"})
        with pytest.raises(DataError, match=message):
            opened(folder / root)

    def test_digests_tell_changes_but_not_places(self, tmp_path, write_shard):
        digests = []
        for members in (
            {"0.png": 1, "1.png": 2},
            {"0.png": 1, "2.png": 2},
            {"0.png": 1, "1.png": b"longer than a PNG of one value is" * 9},
            {"0.png": 1, "1.png": 2, "0.cls": b"0", "1.cls": b"1"},
            {"0.png": 1, "1.png": 2, "0.cls": b"1", "1.cls": b"0"},
        ):
            path = write_shard(tmp_path / "one/a.tar", members)
            digests.append(opened(path.parent, holdout=0).train.digest())
        moved = path.parent.rename(tmp_path / "two")
        assert opened(moved, holdout=0).train.digest() == digests[-1]
        (moved / "a.tar").rename(moved / "b.tar")
        digests.append(opened(moved, holdout=0).train.digest())
        assert len(set(digests)) == 6


class TestIndex:
    def test_members_are_found_where_tarfile_finds_them(self, tmp_path, write_shard):
        names = ["0.png", "x" * 300 + ".png", "ü" * 80 + ".PNG"]
        members = {"a.txt": b"x", "._b.png": b"x", **dict.fromkeys(names, 9)}
        path = write_shard(tmp_path / "a.tar", members)
        with tarfile.open(path, "a") as archive:
            folder = tarfile.TarInfo("folder.png")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        found = index_shard(path).images
        assert [image.name for image, _ in found] == names
        with tarfile.open(path) as archive:
            for image, label in found:
                assert image.read() == archive.extractfile(image.name).read()
                assert label is None

    def test_labels_of_a_key(self, tmp_path, write_shard):
        members = {
            **{"0.cls": b"7\n", "0.jpg": 1},
            **{"in/1.webp": 1, "in/1.json": {"label": 3, "url": "somewhere"}},
            **{"2.png": 1, "2.json": {"cls": 12}},
            **{"3.seg.png": 1, "3.cls": b"4"},
            **{"v1.0.png": 1, "v1.0.cls": b"5", "v1.1.png": 1, "v1.1.cls": b"6"},
            **{"9.json": {"caption": "no label"}, "9.png": 1},
        }
        found = index_shard(write_shard(tmp_path / "a", members)).images
        assert {image.name: label for image, label in found} == {
            **{"0.jpg": "7", "in/1.webp": "3", "2.png": "12", "3.seg.png": "4"},
            **{"v1.0.png": "5", "v1.1.png": "6", "9.png": None},
        }

    @pytest.mark.parametrize(
        ("ending", "content", "found"),
        [
            ("cls", b"", "''"),
            ("cls", b"two\nlines", r"'two\\nlines'"),
            ("cls", b"\xff", r"b'\\xff'"),
            ("json", {"label": 1.0}, "1.0"),
            ("json", {"cls": True}, "True"),
            ("json", b"[1", r"b'\[1'"),
            ("json", b"3", "b'3'"),
        ],
    )
    def test_a_label_that_is_no_name(self, tmp_path, write_shard, ending, content, found):
        path = write_shard(tmp_path / "a.tar", {"0.png": 1, f"0.{ending}": content})
        message = f"or a name as the label in .*a.tar: 0.{ending}; found: {found}. Correct the"
        with pytest.raises(DataError, match=message):
            index_shard(path)

    def test_every_truncation_is_told_with_the_byte(self, shard):
        """Whole blocks of zeros at the end are missing without harm as long as one is left."""
        content = shard.read_bytes()
        end = max(image.offset for image, _ in index_shard(shard).images) + 512
        assert content[end : end + 512] == bytes(512)
        for length in range(0, end + 512, 100):
            shard.write_bytes(content[:length])
            message = (
                rf"an intact shard at .*a.tar; found: damage at byte {length:,} of {length:,}: "
            )
            if length < 512:
                message = f"damage at byte 0 of {length}: no uncompressed tar file"
            with pytest.raises(DataError, match=message):
                index_shard(shard)
        shard.write_bytes(content[: end + 512])
        assert len(index_shard(shard)[0]) == 6

    def test_a_damaged_header_is_told_with_its_byte(self, shard):
        content = bytearray(shard.read_bytes())
        header = index_shard(shard).images[3][0].offset - 512
        content[header + 20] ^= 1
        shard.write_bytes(content)
        message = rf"damage at byte {header:,} of {len(content):,}: no member header"
        with pytest.raises(DataError, match=message):
            index_shard(shard)

    @pytest.mark.parametrize(
        "content", [b"no tar file at all" * 100, gzip.compress(bytes(2000), mtime=0)]
    )
    def test_no_tar_file(self, tmp_path, content):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(DataError, match="byte 0 of .*: no uncompressed tar file"):
            index_shard(tmp_path / "a.tar")
        with pytest.raises(DataError, match="a shard that can be read at .*; found: Is a direct"):
            index_shard(tmp_path)

    def test_is_kept_until_the_shard_changes(self, shard, cache, write_shard, monkeypatch):
        made = index_shard(shard)
        (kept,) = cache.iterdir()
        kept.write_bytes(kept.read_bytes()[:30])  # a damaged one is made again
        assert index_shard(shard) == made
        with monkeypatch.context() as patched:
            patched.setattr(shards, "_rows", None)  # cannot be called
            assert index_shard(shard) == made
        write_shard(shard, {"new.png": 1})
        assert [image.name for image, _ in index_shard(shard).images] == ["new.png"]
        copy = shard.with_name("b.tar")
        shutil.copy2(shard, copy)
        assert index_shard(copy).images[0][0].shard.path == copy
        shutil.rmtree(cache)
        cache.write_text("a file in place of the folder")
        assert len(index_shard(shard).images) == 1


class TestSeveralArchivesInOneFile:
    """What `cat` makes of shards: each has an end of its own, and zeros behind it."""

    @pytest.fixture
    def joined(self, tmp_path, write_shard):
        # Archives of one class each, numbered from the beginning again, and an empty one.
        parts = [
            write_shard(tmp_path / "1.tar", {"1.png": 4, "1.cls": b"4"}),
            write_shard(tmp_path / "2.tar", {}),
            write_shard(tmp_path / "3.tar", {"1.png": 5, "1.cls": b"5", "2.png": 6, "2.cls": b"6"}),
        ]
        path = tmp_path / "joined.tar"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return path

    def test_are_all_read_each_with_its_own_labels(self, joined, tmp_path, write_shard):
        with joined.open("ab") as file:
            file.write(bytes(3 << 20))
            far = write_shard(tmp_path / "4.tar", {"d.png": 7, "d.cls": b"7"})
            file.write(far.read_bytes())
        assert greys(set_of(joined)) == [4, 5, 6, 7]
        assert [label for _, label in index_shard(joined).images] == list("4567")

    def test_something_else_behind_an_end(self, joined):
        size = joined.stat().st_size
        with joined.open("ab") as file:
            file.write(b"something else" * 100)
        with pytest.raises(DataError, match=f"damage at byte {size:,} of .*: no member header"):
            index_shard(joined)

    def test_the_last_one_is_cut_off(self, joined):
        os.truncate(joined, joined.stat().st_size - 9000)
        with pytest.raises(DataError, match="damage at byte .*: the end of the archive is miss"):
            index_shard(joined)


class TestReading:
    def test_a_damaged_image_names_shard_and_member(self, tmp_path, write_shard):
        images = set_of(write_shard(tmp_path / "a.tar", {"0.png": 1, "1.png": b"garbage"}))
        with pytest.raises(DataError, match=r"found: .*a.tar: 1.png \(from byte \d+ on\): cannot"):
            images.load(1)
        readable, unread = images.without_unreadable()
        reason = "with the name of an image and other content"
        assert (greys(readable), unread) == ([1], {"a.tar/1.png": reason})

    def test_a_shard_that_changed_since_its_index_was_made(self, shard, write_shard):
        images = set_of(shard)
        write_shard(shard, {"other.png": 1})
        with pytest.raises(DataError, match=r"index was made; found: it has been written to"):
            images.load(0)
        assert greys(set_of(shard)) == [1]
        images = set_of(shard)
        shards._opened.cache_clear()
        shard.unlink()
        with pytest.raises(DataError, match=r"as it was when its index was made; found: No such"):
            images.load(0)

    def test_a_shard_that_was_cut_off_while_it_was_open(self, shard):
        images = set_of(shard)
        images.load(0)
        offset = images.items[5].offset
        os.truncate(shard, offset + 3)
        with pytest.raises(DataError, match=f"found: it ends at byte {offset + 3}. Do not"):
            images.load(5)
        assert images.load(0).unique().tolist() == [0]

    def test_no_more_than_some_shards_are_kept_open(self, tmp_path, write_shard, monkeypatch):
        paths = [write_shard(tmp_path / f"{i}.tar", {"a.png": i}) for i in range(140)]
        images = [set_of(path) for path in paths]
        before = len(os.listdir("/proc/self/fd"))
        assert [greys(each) for each in images * 2] == [[i] for i in range(140)] * 2
        assert len(os.listdir("/proc/self/fd")) - before <= shards.OPEN_SHARDS

    def test_threads_that_open_and_read_a_shard_at_once(self, tmp_path, write_shard):
        for number in range(30):
            path = write_shard(tmp_path / f"{number}.tar", {f"{i}.png": i for i in range(8)})
            images, together = set_of(path), Barrier(8)

            def load(i, images=images, together=together):
                together.wait()
                return [int(images.load((i + j) % 8)[0, 0, 0]) for j in range(8)]

            with ThreadPoolExecutor(8) as pool:
                found = list(pool.map(load, range(8)))
            assert found == [[(i + j) % 8 for j in range(8)] for i in range(8)]

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_another_process_reads_the_same(self, shard, method):
        images = set_of(shard)
        here = images.load(4)  # the shard is open when the process starts
        with multiprocessing.get_context(method).Pool(1) as pool:
            (there,) = pool.map(operator.methodcaller("load", 4), [images])
        assert there.tolist() == here.tolist()
        assert images.load(5).unique().tolist() == [50]
