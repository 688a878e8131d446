"""Sets of torchvision, written in their own formats."""

import hashlib
import json
import pickle
import struct
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from edgesearch.data import torchvision_sets
from edgesearch.data.open_images import open_images
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def opened(name, root, channels=3, **options):
    return open_images(
        DataSettings(source="torchvision", root=root, name=name, **options), channels
    )


def write_idx(path, values):
    """The format of MNIST: a magic number, the shape, the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(head + values.tobytes())


@pytest.fixture
def mnist(tmp_path):
    for name in ("MNIST", "FashionMNIST"):
        for prefix, count in (("train", 12), ("t10k", 5)):
            raw = tmp_path / name / "raw"
            write_idx(raw / f"{prefix}-images-idx3-ubyte", pixels(count, 28, 28, seed=count))
            write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    return tmp_path


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """CIFAR-10 of 20 + 6 images, as a class that expects the checksums of these files."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    counts = {**{f"data_batch_{i}": 4 for i in range(1, 6)}, "test_batch": 6}
    for number, (name, count) in enumerate(counts.items()):
        batch = {"data": pixels(count, 3072, seed=number), "labels": [number, *[9] * (count - 1)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    names = ["airplane", *"bcdefghi", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))

    class TinyCIFAR10(datasets.CIFAR10):
        train_list = [[name, md5(folder / name)] for name in list(counts)[:5]]
        test_list = [["test_batch", md5(folder / "test_batch")]]
        meta = {**datasets.CIFAR10.meta, "md5": md5(folder / "batches.meta")}

    monkeypatch.setattr(datasets, "TinyCIFAR10", TinyCIFAR10, raising=False)
    return tmp_path


@pytest.fixture
def stl(tmp_path, monkeypatch):
    """STL-10 of 4 + 3 images with labels and 5 without."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for number, (name, count) in enumerate({"train": 4, "test": 3, "unlabeled": 5}.items()):
        (folder / f"{name}_X.bin").write_bytes(pixels(count, 3, 96, 96, seed=number).tobytes())
        (folder / f"{name}_y.bin").write_bytes(bytes(range(1, count + 1)))
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))

    class TinySTL10(datasets.STL10):
        train_list = [[n, md5(folder / n)] for n, _ in datasets.STL10.train_list]
        test_list = [[n, md5(folder / n)] for n, _ in datasets.STL10.test_list]

    monkeypatch.setattr(datasets, "TinySTL10", TinySTL10, raising=False)
    return tmp_path


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_mnist(mnist, name):
    splits = opened(name, mnist, 1)
    assert (len(splits.train), len(splits.test)) == (12, 5)
    expected = torch.from_numpy(pixels(12, 28, 28, seed=12))
    assert torch.equal(splits.train.stack()[:, 0], expected)
    assert splits.train.labels.tolist() == [*range(10), 0, 1]
    assert splits.test.labels.tolist() == [*range(5)]
    assert (
        splits.train.class_names
        == splits.test.class_names
        == tuple(getattr(datasets, name).classes)
    )
    assert splits.labelled is None
    colour = opened(name, mnist).train.load(0)
    assert torch.equal(colour, expected[0].expand(3, 28, 28))


def test_cifar10(cifar):
    splits = opened("TinyCIFAR10", cifar)
    first = torch.from_numpy(pixels(4, 3072)).view(4, 3, 32, 32)
    assert torch.equal(splits.train.stack()[:4], first)
    assert splits.train.labels.tolist() == [
        label for number in range(5) for label in (number, 9, 9, 9)
    ]
    assert splits.test.labels.tolist() == [5, 9, 9, 9, 9, 9]
    assert splits.train.class_names[0] == "airplane"
    assert opened("TinyCIFAR10", cifar, 1).train.load(0).shape == (1, 32, 32)


def test_stl10_trains_on_images_without_labels(stl):
    splits = opened("TinySTL10", stl)
    counts = [len(images) for images in (splits.train, splits.test, splits.labelled)]
    assert counts == [5, 3, 4]
    assert splits.train.labels is None
    assert splits.labelled.labels.tolist() == [0, 1, 2, 3]
    assert splits.test.class_names == splits.labelled.class_names == tuple("abcdefghij")
    stored = torch.from_numpy(pixels(5, 3, 96, 96, seed=2))
    assert torch.equal(splits.train.load(4), stored[4].mT)  # columns first on the disk


def test_svhn(tmp_path, monkeypatch):
    """A set that is read by scipy, and whose class has no names for its classes."""
    from scipy.io import savemat

    for name, count in (("train", 4), ("test", 3)):
        values = pixels(32, 32, 3, count, seed=count)
        labels = np.arange(10, 10 - count, -1)[:, None]
        savemat(tmp_path / f"{name}_32x32.mat", {"X": values, "y": labels})

    class TinySVHN(datasets.SVHN):
        split_list = {
            name: ["", f"{name}_32x32.mat", md5(tmp_path / f"{name}_32x32.mat")]
            for name in ("train", "test")
        }

    monkeypatch.setattr(datasets, "TinySVHN", TinySVHN, raising=False)
    splits = opened("TinySVHN", tmp_path)
    assert splits.train.labels.tolist() == [0, 9, 8, 7]
    assert splits.test.class_names == tuple("0123456789")
    expected = torch.from_numpy(pixels(32, 32, 3, 4, seed=4)).permute(3, 2, 0, 1)
    assert torch.equal(splits.train.stack(), expected)


def write_jpegs(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), (200, 0, 0)).save(folder / name)


def test_a_set_of_files_stays_on_the_disk(tmp_path):
    """Food-101: lists of the splits beside the images."""
    folder = tmp_path / "food-101"
    write_jpegs(folder / "images", "pie/1.jpg", "pie/2.jpg", "ramen/3.jpg")
    (folder / "meta").mkdir()
    for split, members in {
        "train": {"pie": ["pie/2"], "ramen": ["ramen/3"]},
        "test": {"pie": ["pie/1"]},
    }.items():
        (folder / "meta" / f"{split}.json").write_text(json.dumps(members))
    splits = opened("Food101", tmp_path)
    assert [item.path for item in splits.train.items] == [
        folder / "images/pie/2.jpg",
        folder / "images/ramen/3.jpg",
    ]
    assert splits.train.labels.tolist() == [0, 1]
    assert splits.test.class_names == ("pie", "ramen")
    assert splits.train.load(1).shape == (3, 7, 9)
    digest = splits.train.digest()
    Image.effect_noise((40, 40), 50).save(folder / "images/pie/2.jpg")
    assert opened("Food101", tmp_path).train.digest() != digest


def test_a_set_without_splits_has_a_share_held_out(tmp_path):
    """EuroSAT: a folder for each class."""
    names = [f"{kind}/{i}.jpg" for kind in ("Forest", "River") for i in range(5)]
    write_jpegs(tmp_path / "eurosat/2750", *names)
    splits = opened("EuroSAT", tmp_path, holdout=0.4)
    assert splits.train.labels.bincount().tolist() == [3, 3]
    assert splits.test.labels.bincount().tolist() == [2, 2]
    assert splits.test.class_names == ("Forest", "River")


@pytest.fixture
def fake(monkeypatch):
    """Make a set of torchvision whose samples are what a function gives for an index."""

    def fake(name, samples, count=2, **attributes):
        class Fake(datasets.VisionDataset):
            def __init__(self, root):
                super().__init__(root)

            def __len__(self):
                return count

            def __getitem__(self, index):
                return samples(index)

        kind = type(name, (Fake,), attributes)
        monkeypatch.setattr(datasets, name, kind, raising=False)
        return name

    return fake


GREY = Image.new("L", (4, 4))


def test_several_names_of_a_class_become_one(tmp_path, fake):
    classes = (("tench", "Tinca tinca"), ("goldfish",))
    named = fake("Named", lambda index: (GREY, index % 2), 4, classes=classes)
    assert opened(named, tmp_path).train.class_names == ("tench, Tinca tinca", "goldfish")


def test_labels_that_are_no_classes_are_left_out(tmp_path, fake):
    splits = opened(fake("Attributes", lambda index: (GREY, torch.zeros(40))), tmp_path)
    assert (len(splits.train), splits.train.labels, splits.test) == (2, None, None)


def test_sets_that_cannot_be_used(tmp_path, fake):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    damaged = fake("Damaged", lambda index: (Image.open(tmp_path / "broken.jpg"), 0))
    pairs = fake("Pairs", lambda index: ((GREY, GREY), 0))
    empty = fake("Empty", None, 0)
    for name, message in (
        (damaged, "can be read in torchvision's Damaged; found: image 0: cannot identify image"),
        (pairs, "single images, .*; found: Pairs, whose samples are not images"),
        (empty, "single images, .*; found: no images in Empty"),
        ("CocoDetection", "single images.*; found: CocoDetection, which needs annFile"),
        ("EMNIST", "a training split .*; found: EMNIST, which has other splits"),
        ("ImageNet", r"ImageNet in .*The documentation of torchvision.datasets.I"),
    ):
        with pytest.raises(DataError, match=message):
            opened(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("CIFAR10", "CIFAR10('{root}', train=True, download=True)"),
        ("STL10", "STL10('{root}', download=True)"),
        ("SVHN", "SVHN('{root}', split='train', download=True)"),
    ],
)
def test_a_set_that_is_not_there_says_how_to_get_it(tmp_path, name, call):
    with pytest.raises(DataError) as caught:
        opened(name, tmp_path)
    assert caught.value.required == f"the files of torchvision's {name} in {tmp_path}"
    assert caught.value.found == "Dataset not found or corrupted"
    command = f"from torchvision.datasets import {name}; {call.format(root=tmp_path)}"
    assert caught.value.remedy == f'Download them with: python -c "{command}"'
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_refused(cifar):
    path = cifar / "cifar-10-batches-py/data_batch_3"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="found: Dataset not found or corrupted. Download them"):
        opened("TinyCIFAR10", cifar)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("cifar10", "Did you mean CIFAR10"),
        ("CIFAR-100", "Did you mean CIFAR100"),
        ("FashonMNIST", "Did you mean FashionMNIST"),
        ("zzzzzz", "Choose one of .*CIFAR10, CIFAR100"),
        ("ImageFolder", ""),
        ("transforms", ""),
    ],
)
def test_a_name_that_torchvision_does_not_have(tmp_path, name, remedy):
    with pytest.raises(DataError, match=f"such as CIFAR10; found: '{name}'. .*{remedy}"):
        opened(name, tmp_path)


@pytest.mark.parametrize(("name", "package"), [("PCAM", "h5py"), ("StanfordCars", "scipy")])
def test_a_missing_package_that_the_set_tells_of_in_other_words(
    tmp_path, monkeypatch, name, package
):
    for module in [package, *(m for m in sys.modules if m.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    message = f"that torchvision reads {name} with; found: .*{package}.* pip install {package}"
    with pytest.raises(DataError, match=message):
        opened(name, tmp_path)


def test_more_than_memory_holds(mnist, monkeypatch):
    monkeypatch.setattr(torchvision_sets, "MAX_BYTES", 5000)
    with pytest.raises(DataError, match="fit into 0 GiB .*; found: more, in 12 images of MNIST"):
        opened("MNIST", mnist, 1)


def test_digest_tells_other_pixels(mnist):
    before = opened("MNIST", mnist, 1).train.digest()
    assert opened("MNIST", mnist, 1).train.digest() == before
    path = mnist / "MNIST/raw/train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert opened("MNIST", mnist, 1).train.digest() != before
