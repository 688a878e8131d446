"""Files of weights: read whatever their ending, or named for what they are, with a way on."""

import argparse
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgesearch.errors import CheckpointError
from edgesearch.supernet.weight_files import read_tensors

STATE = {"conv1.weight": torch.arange(12.0).view(3, 1, 2, 2)}


class _RunsCode:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def torchscript(path):
    torch.jit.script(nn.Linear(2, 2)).save(path)


def archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("resnet50.pth", b"x")


def cut(write):
    """Half of what a function writes."""

    def write_half(path):
        write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return write_half


def of(content):
    return lambda path: path.write_bytes(content)


def sparse(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)


def onnx_model(path):
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["x2"])
    graph = onnx.helper.make_graph([node], "g", [value], [])
    onnx.save(onnx.helper.make_model(graph), path)


FOREIGN = {
    "empty.pth": (of(b""), "an empty file", "Download it again"),
    "page.pth": (of(b"<!DOCTYPE html><html>"), "a web page", "The download has failed"),
    "pointer.pth": (
        of(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n"),
        "a pointer of Git LFS",
        "Run `git lfs pull`",
    ),
    "notes.pth": (of(b"lr: 0.1\nepochs: 3\n"), "a text", "Choose the file of the weights"),
    "run.yaml": (of(b"seed: 0\n"), "a configuration in YAML", "edgesearch pretrain FILE"),
    "subnet.onnx": (onnx_model, "a network in ONNX form", "pretrain.teacher.onnx"),
    "keras.h5": (of(b"\x89HDF\r\n\x1a\n"), "an HDF5 file", "Convert it"),
    "arrays.npz": (lambda path: np.savez(path, a=np.ones(2)), "a zip archive with a.npy", "Unpack"),
    "weights.zip": (archive, "a zip archive with resnet50.pth", "Unpack it, and name the file"),
    "scripted.pt": (torchscript, "a program in TorchScript", "pretrain.teacher.torchscript"),
    "noise.pth": (of(b"\1" * 100), "no file that torch.save or safetensors wrote", "Download"),
    "huge.pth": (sparse, "a file that begins with zeros", "Download it again"),
    "huge.safetensors": (sparse, "a file that begins with zeros", "Download it again"),
    "cut.pth": (
        cut(lambda path: torch.save(STATE, path)),
        r"a damaged or incomplete file of [\d,]+ bytes \(its end is missing\)",
        "Download it again",
    ),
    "cut.safetensors": (
        cut(lambda path: save_file(STATE, path)),
        "a damaged or incomplete file",
        "Download it again",
    ),
    "code.pth": (
        lambda path: torch.save(_RunsCode(), path),
        r"objects that would run code when they are loaded \(posix.mkdir\)",
        r"save its `state_dict\(\)` alone",
    ),
    "code.pkl": (
        lambda path: path.write_bytes(pickle.dumps(_RunsCode(), 2)),
        r"objects that would run code when they are loaded \(posix.mkdir\)",
        "Load it where you trust it",
    ),
    "new.pkl": (
        lambda path: path.write_bytes(pickle.dumps(_RunsCode(), 5)),
        "a pickle of other objects than tensors",
        "Load it where you trust it",
    ),
    "model.pth": (
        lambda path: torch.save(nn.Linear(1, 1), path),
        r"would run code when they are loaded \(torch.nn.modules.linear.Linear\)",
        "save its",
    ),
    "state.pt": (
        lambda path: torch.save({"format": "edgesearch-training-state-1", "a": STATE}, path),
        "a training state of edgesearch",
        "model.safetensors beside it",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_file_of_weights_is_named_with_a_way_on(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, found, remedy = FOREIGN[name]
    write(tmp_path / name)
    with pytest.raises(CheckpointError, match=found) as caught:
        read_tensors(tmp_path / name)
    assert name in caught.value.required
    assert caught.match(remedy)
    assert not (tmp_path / "executed").exists()


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "link.pth").symlink_to(tmp_path / "gone.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "downloads").mkdir()
    for name, found in (
        ("gone.pth", "no such file. Correct the path, or take one of efficientnet-lite0"),
        ("link.pth", "a link to .*gone.pth, which is missing"),
        ("pipe.pth", "a pipe, socket or device"),
        ("downloads", "a folder without files of weights"),
    ):
        with pytest.raises(CheckpointError, match=found):
            read_tensors(tmp_path / name)
    (tmp_path / "downloads" / "a.pth").touch()
    with pytest.raises(CheckpointError, match="a folder with a.pth. Name the file"):
        read_tensors(tmp_path / "downloads")


def test_a_mistyped_name_is_told_from_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="Did you mean efficientnet-lite0"):
        read_tensors(tmp_path.__class__("efficientnet_lite0"))


@pytest.mark.parametrize("name", ["weights.pth", "weights.bin", "weights.safetensors", "weights"])
@pytest.mark.parametrize("write", [torch.save, save_file])
def test_the_content_decides_not_the_ending(write, name, tmp_path):
    write(STATE, tmp_path / name)
    found = read_tensors(tmp_path / name)
    assert found.keys() == STATE.keys()
    assert torch.equal(found["conv1.weight"], STATE["conv1.weight"])


def test_a_file_of_the_old_form_and_one_with_options_are_read(tmp_path):
    values = {"state_dict": STATE, "args": argparse.Namespace(lr=0.1), "epoch": 3}
    for new in (True, False):
        torch.save(values, tmp_path / "old.pth", _use_new_zipfile_serialization=new)
        assert list(read_tensors(tmp_path / "old.pth")) == ["state_dict.conv1.weight"]


@pytest.mark.slow
def test_a_large_file_is_not_read_into_memory(tmp_path):
    save_file({"a": torch.zeros(1 << 29), "b": torch.ones(2)}, tmp_path / "large.safetensors")
    torch.save({"a": torch.zeros(1 << 29), "b": torch.ones(2)}, tmp_path / "large.pth")
    code = (
        "import re, sys; from pathlib import Path; "
        "from edgesearch.supernet.weight_files import read_tensors; "
        "found = [read_tensors(Path(name))['b'] for name in sys.argv[1:]]; "
        # not ru_maxrss, which the process that started this one passes on
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    names = [str(tmp_path / f"large.{ending}") for ending in ("safetensors", "pth")]
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 1 << 30
