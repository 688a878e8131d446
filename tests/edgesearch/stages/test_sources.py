"""The chain on images from shards and from a set of torchvision."""

import io
import json
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from edgesearch.cli.main import app

FAST = ["pretrain.epochs=1", "search.evaluations=4", "search.population=", "export.tensorrt="]


@pytest.fixture
def call(chain):
    """Call a command in this process, on a copy of a finished run."""

    def call(stage, *overrides):
        where = [str(chain.config), f"output_dir={chain.output_dir}", *FAST]
        result = CliRunner().invoke(app, [stage, *where, *overrides])
        assert result.exit_code == 0, result.output
        return result

    return call


def write_digits(path, first, count, size=16):
    """A shard of scikit-learn's digits, with labels."""
    digits = load_digits()
    with tarfile.open(path, "w") as archive:
        for number in range(first, first + count):
            content = io.BytesIO()
            image = Image.fromarray((digits.images[number] * 15).astype(np.uint8))
            image.resize((size, size)).save(content, "png")
            label = str(digits.target[number]).encode()
            for ending, each in ((".png", content.getvalue()), (".cls", label)):
                info = tarfile.TarInfo(f"{number}{ending}")
                info.size = len(each)
                archive.addfile(info, io.BytesIO(each))


@pytest.fixture
def shards(tmp_path):
    """Overrides that name a folder of shards."""
    folder = tmp_path / "shards"
    folder.mkdir()
    write_digits(folder / "train-0.tar", 0, 200)
    write_digits(folder / "train-1.tar", 200, 150)
    write_digits(folder / "val-0.tar", 1000, 60)
    return [f"data.root={folder}", "data.source=shards"]


def test_the_chain_on_shards(call, chain, shards, tmp_path):
    done = call("run", *shards, "export.output=logits")
    assert "data.source has changed from 'digits' to 'shards'" in done.stderr
    assert "are enlarged" not in done.stderr
    manifest = json.loads((chain.output_dir / "engines/w0/manifest.json").read_text("utf-8"))
    assert manifest["classes"] == [str(digit) for digit in range(10)]
    metrics = (chain.output_dir / "supernet/metrics.jsonl").read_text("utf-8")
    assert json.loads(metrics.splitlines()[-1])["monitor"]["knn_largest"] > 0.2
    judged = call("evaluate", *shards, "--json").stdout
    assert "largest" in judged

    for stage in ("pretrain", "search", "export"):
        again = call(stage, *shards, "export.output=logits")
        assert "already finished" in again.stderr

    write_digits(tmp_path / "shards/train-1.tar", 300, 150)
    again = call("pretrain", *shards)
    assert "other than before: the set of images: starting over" in again.stderr
    for stage in ("search", "export"):
        again = call(stage, *shards, "export.output=logits")
        assert "other than before: " in again.stderr


def test_tiny_images_in_shards_are_said(call, shards, tmp_path):
    write_digits(tmp_path / "shards/train-0.tar", 0, 200, size=6)
    write_digits(tmp_path / "shards/train-1.tar", 200, 150, size=6)
    result = call("pretrain", *shards)
    assert "images with a short side of 6 pixels are enlarged to 16" in result.stderr


def write_mnist(root):
    """MNIST's own files, of scikit-learn's digits in the corner."""
    digits = load_digits()
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, chosen in (("train", slice(0, 200)), ("t10k", slice(200, 250))):
        images = np.zeros((chosen.stop - chosen.start, 28, 28), np.uint8)
        images[:, 4:20, 4:20] = (digits.images[chosen] * 15).repeat(2, 1).repeat(2, 2)
        for kind, values in (("images-idx3", images), ("labels-idx1", digits.target[chosen])):
            head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            (raw / f"{name}-{kind}-ubyte").write_bytes(head + values.astype(np.uint8).tobytes())


def test_the_chain_on_a_set_of_torchvision(call, chain, tmp_path):
    write_mnist(tmp_path)
    mnist = ["data.source=torchvision", "data.name=MNIST", f"data.root={tmp_path}"]
    call("run", *mnist, "export.output=logits")
    manifest = json.loads((chain.output_dir / "engines/w0/manifest.json").read_text("utf-8"))
    assert manifest["classes"][0] == "0 - zero"
    metrics = (chain.output_dir / "supernet/metrics.jsonl").read_text("utf-8")
    assert 0 <= json.loads(metrics.splitlines()[-1])["monitor"]["knn_largest"] <= 1
    assert "already finished" in call("pretrain", *mnist).stderr


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["data.source=shards"], ["shards (.tar, not compressed)", "no file that ends in .tar"]),
        (
            ["data.source=torchvision", "data.name=CIFAR10"],
            ["the files of torchvision's CIFAR10", "train=True, download=True"],
        ),
        (["data.source=torchvision", "data.name=Cifar10"], ["Did you mean CIFAR10"]),
    ],
)
def test_what_is_missing_is_said_in_one_message(chain, tmp_path, overrides, messages):
    where = [str(chain.config), f"output_dir={chain.output_dir}", f"data.root={tmp_path}"]
    result = CliRunner().invoke(app, ["pretrain", *where, *overrides])
    assert result.exit_code == 2, result.output
    text = " ".join(result.stderr.split())
    assert text.count("error: required:") == 1
    assert all(message in text for message in messages)


def test_how_images_are_understood_is_told_once_and_in_json(chain, tmp_path):
    digits = load_digits()
    for number in range(120):
        path = tmp_path / f"pictures/train/{digits.target[number]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[number] * 15).astype(np.uint8)).resize((16, 16)).save(path)
    path.write_bytes(b"damaged")
    (tmp_path / "pictures/test").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "pictures/test/1.png")
    where = [f"data.root={tmp_path}/pictures", "data.source=folder", "search.images=32"]
    batch = ["pretrain.batch_size=16", "search.calibration_images=32", "search.batch_size=16"]
    done = chain.call("run", *FAST, *where, *batch, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("images: 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, …; ") == 1
    assert "images left out: 1 with the name of an image and other content (train/" in done.stderr
    data = json.loads(done.stdout)["data"]
    assert "held out of train; 16 × 16 pixels in grey; left out: 1 in test/" in data["understood"]
    assert [each["count"] for each in data["left_out"]] == [1, 1]
    assert data["train"] + data["test"] == 119
