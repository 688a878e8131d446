"""Folders as people have them: their layouts, and whatever else lies there."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from PIL import Image

import edgesearch
from edgesearch.config import Config
from edgesearch.data.open_images import open_images
from edgesearch.data.settings import DataSettings
from edgesearch.data.splits import describe
from edgesearch.errors import DataError

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def write(root, *names, mode="L", size=(4, 4), kind=None):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, 100).save(path, kind)


def opened(root, channels=3, **options):
    return open_images(DataSettings(source="folder", root=root, **options), channels)


def names(images):
    return [item.name_below(images.origin) for item in images.items]


def told(splits):
    return [str(each) for each in splits.left_out]


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


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *[("train", test) for test in ("val", "valid", "validation", "test", "eval", "dev")],
        *[("Train", "Test"), ("training", "testing"), ("train_set", "val_set")],
        *[("TRAINING SET", "Test-Images"), ("train2017", "val2017"), ("a/b/train", "a/b/val")],
    ],
)
def test_split_folders(tmp_path, train, test):
    write(tmp_path, f"{train}/cat/1.png", f"{train}/dog/1.png", f"{train}/emu/1.png")
    write(tmp_path, f"{test}/dog/2.png", f"{test}/emu/2.png")
    splits = opened(tmp_path)
    assert names(splits.train) == [f"{train}/{name}/1.png" for name in ("cat", "dog", "emu")]
    assert splits.train.class_names == splits.test.class_names == ("cat", "dog", "emu")
    assert splits.test.labels.tolist() == [1, 2]
    where = f"{test.rpartition('/')[2]}/"
    assert f"3 classes: cat, dog, emu; 3 train, 2 test in {where};" in str(describe(splits))


def test_test_goes_before_validation_if_it_has_classes(tmp_path):
    write(tmp_path, *[f"{split}/{name}/1.png" for split in ("train", "val") for name in "ab"])
    write(tmp_path, "test/2.png", "test/3.png")
    splits = opened(tmp_path)
    assert names(splits.test) == ["val/a/1.png", "val/b/1.png"]
    assert told(splits) == ["2 in test/ without a class (first test/2.png)"]
    write(tmp_path, "test/a/1.png")
    splits = opened(tmp_path)
    assert names(splits.test) == ["test/a/1.png"]
    assert told(splits) == [
        "2 in test/ without a class (first test/2.png)",
        "2 in val/, which is not used (first val/a/1.png)",
    ]


def test_test_images_without_classes_leave_the_labels_of_the_training_images(tmp_path):
    write(tmp_path, *[f"train/{name}/{i}.png" for name in "ab" for i in range(5)])
    write(tmp_path, "test/images/1.png", "test/2.png")
    splits = opened(tmp_path)
    assert splits.test.labels.tolist() == [0, 1]
    line = str(describe(splits))
    assert line.startswith("2 classes: a, b; 8 train, 2 test held out of train;")
    assert line.endswith("left out: 2 in test/ without a class (first test/images/1.png)")


def test_splits_inside_of_classes(tmp_path):
    files = [f"{n}/{s}/x/{i}.png" for n in ("nut", "pin") for s in ("test", "train") for i in "12"]
    write(tmp_path, *files)
    splits = opened(tmp_path)
    assert names(splits.test) == [file for file in files if "test" in file]
    assert splits.train.class_names == splits.test.class_names == ("nut", "pin")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("valid/1.png", "test/1.png"), "a folder train/ beside .*found: test/, valid/. Name the"),
        (("train/1.png", "Train/1.png", "val/1.png"), "one folder of train images .*: Train/, tr"),
        (("val/a/1.png", "train/readme.txt"), "training images that can be read in .*found: train"),
        (("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"), "of val/ .*r.s.: c. Gi"),
        (
            ("train/a/1.png", "train/b/1.png", "val/A/1.png", "val/B/1.png"),
            r"of val/ .*: A \(a in train/\), B \(b in train/\). Give",
        ),
    ],
)
def test_splits_that_are_not_clear_are_refused(tmp_path, files, message):
    write(tmp_path, *[file for file in files if not file.endswith("txt")])
    for file in files:
        if file.endswith("txt"):
            (tmp_path / file).parent.mkdir()
            (tmp_path / file).write_text("no image")
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_images_beside_class_folders_have_no_class(tmp_path):
    write(tmp_path, *[f"{name}/{i}.png" for name in "ab" for i in range(5)], "2.png", "3.png")
    splits = opened(tmp_path)
    assert splits.train.class_names == ("a", "b")
    assert sorted(names(splits.train.subset(splits.train.without_class))) == ["2.png", "3.png"]
    assert len(splits.train.with_class()) == 8
    assert splits.test.without_class == []
    line = "10 train (2 of them without a class, for pre-training only: first 2.png), 2 test held"
    assert line in str(describe(splits))


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_a_folder_of_unlabelled_images_is_trained_on(tmp_path, prefix):
    write(tmp_path, *[f"{prefix}{name}/{i}.png" for name in "ab" for i in range(5)])
    write(tmp_path, "unlabeled/x/1.png", "unlabeled/2.png")
    train = opened(tmp_path).train
    assert train.class_names == ("a", "b")
    unlabelled = names(train.subset(train.without_class))
    assert sorted(unlabelled) == ["unlabeled/2.png", "unlabeled/x/1.png"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (("a/1.png", "a/b/2.png"), "only one class folder with training images, b"),
        (("1.png", "2.png"), "training images in no class folder, such as 1.png"),
        (("train/cat/1.png", "test/cat/1.png"), "only one class folder with training images, cat"),
        (("x/y/1.png", "x/y/2.png"), "all training images are in one folder, x/y/"),
        (("x/1.png", "x/2.png"), "all training images are in one folder, x/"),
        (("train/1.png", "train/2.png"), "all training images are in one folder, train/"),
    ],
)
def test_what_prevents_labels_is_named(tmp_path, files, reason):
    write(tmp_path, *files)
    splits = opened(tmp_path)
    assert splits.train.labels is None
    assert f"no classes ({reason})" in str(describe(splits))


def test_hidden_and_other_files_are_told(tmp_path):
    write(tmp_path, "a/1.PNG", "b/1.jpeg", ".cache/2.png", "a/.hidden.png", ".trash.png")
    write(tmp_path, "__MACOSX/a/1.png", "@eaDir/x.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / ".DS_Store").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    splits = opened(tmp_path)
    assert names(splits.train) == ["a/1.PNG", "b/1.jpeg"]
    assert splits.train.class_names == ("a", "b")
    assert sorted(told(splits)) == [
        "1 of another type (a/notes.txt)",
        "1 without any image (empty/)",
        "5 hidden (first .cache/)",
    ]


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere", "1.png")
    write(tmp_path / "root", "a/2.png")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "everything").symlink_to("/")
    splits = opened(tmp_path / "root")
    assert names(splits.train) == ["a/2.png", "b/1.png"]
    assert told(splits) == ["2 leading back to a folder above (first a/up/)"]
    (tmp_path / "other").symlink_to("root")
    assert opened(tmp_path / "other").train.digest() == splits.train.digest()


def test_content_decides_where_the_ending_says_nothing(tmp_path):
    kinds = {"jpe": "jpeg", "tga": "tga", "jp2": "jpeg2000", "qoi": "qoi", "tif": "tiff"}
    for ending, kind in kinds.items():
        write(tmp_path, f"a/1.{ending}", kind=kind, mode="RGB")
    write(tmp_path, "b/noending", "b/img.jpg_large", "b/1.001", kind="jpeg")
    write(tmp_path, "b/photo.nef", kind="tiff")  # its thumbnail
    (tmp_path / "b/README").write_text("P5 is no image")
    (tmp_path / "b/0.jpg").write_bytes(b"")
    (tmp_path / "b/2.heic").write_bytes(HEIC)
    (tmp_path / "b/3.jpg").write_bytes(HEIC)  # known when it is decoded
    splits = opened(tmp_path, holdout=0)
    assert len(splits.train) == len(kinds) + 4
    assert told(splits) == [
        "1 of another type (b/README)",
        "1 in a format that Pillow cannot read (b/photo.nef)",
        "1 empty (b/0.jpg)",
        "1 in HEIC, which needs `pip install pillow-heif` (b/2.heic)",
    ]
    readable, unread = splits.train.without_unreadable()
    assert unread == {"b/3.jpg": "in HEIC, which needs `pip install pillow-heif`"}
    assert len(readable) == len(kinds) + 3


@pytest.fixture
def folder_of_user():
    """A folder of a user whom permissions hold: root may read everything."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield folder
    if os.getuid() == 0:
        os.seteuid(0)
    for path in folder.iterdir():
        if not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


def dangle(path):
    path.symlink_to("/nowhere")


def alias(path):
    path.symlink_to("a")


def forbid(path):
    path.mkdir()
    path.chmod(0)


def fill_with_heic(path):
    path.mkdir()
    (path / "1.heic").write_bytes(HEIC)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (dangle, "c/ .linked to nothing."),
        (alias, "c/ .leading to a folder that is read already."),
        (forbid, "c/ .without permission to read."),
        (fill_with_heic, "c/1.heic .in HEIC, which"),
    ],
)
def test_a_class_of_which_nothing_can_be_read(folder_of_user, make, reason):
    write(folder_of_user, "a/1.png", "b/1.png")
    make(folder_of_user / "c")
    with pytest.raises(DataError, match=f"each class folder and split of .*, because of {reason}"):
        opened(folder_of_user)
    splits = opened(folder_of_user, allow_missing_classes=True)
    assert splits.train.class_names == ("a", "b")
    assert len(splits.left_out) == 1


def test_files_that_cannot_be_read_are_left_out(folder_of_user):
    write(folder_of_user, *[f"{name}/{i}.png" for name in "ab" for i in range(3)])
    dangle(folder_of_user / "a/x.png")
    os.mkfifo(folder_of_user / "a/pipe.png")
    (folder_of_user / "b/0.png").chmod(0)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder_of_user / "b/socket.png"))
        splits = opened(folder_of_user, holdout=0)
    assert len(splits.train) == 5
    assert told(splits) == [
        "2 that is a pipe, socket or device (first a/pipe.png)",
        "1 linked to nothing (a/x.png)",
        "1 without permission to read (b/0.png)",
    ]


def test_the_output_of_a_run_is_not_read(tmp_path, small_config):
    write(tmp_path, *[f"{name}/{i}.png" for name in "ab" for i in range(5)])
    folders = [tmp_path / "runs" / name for name in ("this", "other", "copy")]
    write(tmp_path, *[f"runs/{folder.name}/search/pareto.png" for folder in folders])
    (folders[1] / ".lock").touch()
    (folders[1] / "latency").mkdir()
    (folders[2] / "search/stage.json").write_text("{}")  # as `cp -r` copies it, without .lock
    data = {"source": "folder", "root": str(tmp_path)}
    values = {**small_config, "data": data, "output_dir": str(folders[0])}
    events = []
    run = edgesearch.Run(Config.model_validate(values), report=events.append)
    assert run.open_images().digest == run.open_images().digest
    assert run.contents.classes == ("a", "b")
    assert [event.message for event in events] == [  # once for all stages
        "2 classes: a, b; 8 train, 2 test held out of train; 4 × 4 pixels in grey; "
        "left out: 3 written by edgesearch (first runs/copy/)"
    ]
    inside = edgesearch.Run(Config.model_validate({**values, "output_dir": str(tmp_path)}))
    with pytest.raises(DataError, match="does not write to, .* the output folder of a run. Choose"):
        inside.open_images()


def test_names_of_classes_are_single_lines_of_text(tmp_path):
    folders = [b"a\nb", "ü.".encode(), b"\xff\xfe", "x\u2028y".encode(), b"\t", b" a "]
    for folder in folders:
        write(tmp_path, f"{os.fsdecode(folder)}/1.png")
    found = opened(tmp_path).train.class_names
    assert sorted(found) == sorted(["a\\nb", "ü.", "\\xff\\xfe", "x\\u2028y", "\\t", "\\x20a\\x20"])
    assert "\n".join(found).encode().decode().splitlines() == list(found)
    write(tmp_path, "u\u0308./1.png")  # as macOS writes it
    with pytest.raises(DataError, match="several that are written 'ü.', in other bytes. Rename"):
        opened(tmp_path)


def test_letters_of_another_system_are_the_same_class(tmp_path):
    write(tmp_path, "train/gr\u00fcn/1.png", "train/b/1.png", "test/gru\u0308n/1.png")
    splits = opened(tmp_path)
    assert splits.train.class_names[splits.test.labels[0]] == "grün"


def test_what_does_not_fit_the_space_is_told(tmp_path):
    write(tmp_path, "a/1.png", "b/1.png", mode="RGB", size=(400, 300))
    contents = describe(opened(tmp_path))
    assert contents.smallest == contents.largest == (400, 300)
    grey, shrunk = contents.misfits(channels=1, resolution=32)
    assert grey.startswith("warning: the images are in colour and are read in grey")
    assert shrunk.startswith("images with a short side of 300 pixels or more are shrunk to 32")
    assert contents.misfits(channels=3, resolution=224) == []


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("none", "folder of images at .*none; found: nothing of that"),
        ("flat/1.png", "folder of images at .*1.png; found: a file"),
        ("empty", "images in .*empty; found: none among 1 .*; the first: readme.txt .of another"),
        ("half", "each class folder and split of .*half; found: none in 1 of them, .* val/ .empty"),
    ],
)
def test_a_folder_without_images_is_refused(tmp_path, root, message):
    write(tmp_path, "flat/1.png", "half/train/1.png")
    for folder in ("empty", "half/val"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "readme.txt").write_text("nothing to see")
    with pytest.raises(DataError, match=message):
        opened(tmp_path / root)
