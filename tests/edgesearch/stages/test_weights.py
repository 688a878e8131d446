"""Command weights on what a run leaves behind, and on public weights."""

import json

import pytest
import torch
from typer.testing import CliRunner

from edgesearch.cli.main import app


@pytest.fixture
def weights(finished):
    """The command, for a path below the folder of the finished run or another one."""
    return lambda path, *more: CliRunner().invoke(
        app, ["weights", str(finished[0].output_dir / path), *more]
    )


@pytest.mark.parametrize("path", ["", "supernet", "supernet/model.safetensors"])
def test_a_run_and_its_supernet(path, weights):
    done = weights(path)
    assert done.exit_code == 0
    assert "model.safetensors: a supernet of edgesearch, trained by moco_v2" in done.stdout
    assert "resnet space two stages, 32 architectures; pretrain.init takes it" in done.stdout
    assert json.loads(weights(path, "--json").stdout)["architectures"] == 32


@pytest.mark.parametrize(
    ("path", "found", "remedy"),
    [
        ("engines/w0/subnet.safetensors", "a subnet that edgesearch has exported", "load_subnet"),
        ("engines/w0/subnet.onnx", "a network in ONNX form", "pretrain.teacher.onnx"),
        ("engines/w0", "a folder with subnet.safetensors", "Name the file"),
        ("supernet/state.pt", "a training state of edgesearch", "model.safetensors beside it"),
        ("winners.json", "a text in JSON", "Choose the file of the weights"),
        ("mobilenet-v2", "no such file", "take one of efficientnet-lite0"),
    ],
)
def test_what_else_a_run_leaves_behind(path, found, remedy, weights):
    done = weights(path)
    assert done.exit_code == 2
    assert f"found: {found}" in done.stderr
    assert remedy in done.stderr
    assert done.stderr.count("error:") == 1


def test_public_weights_with_the_spaces_that_hold_them(tmp_path):
    from torchvision.models import mobilenet_v2

    torch.save(mobilenet_v2(weights=None).state_dict(), tmp_path / "v2.pth")
    done = CliRunner().invoke(app, ["weights", str(tmp_path / "v2.pth")])
    assert done.exit_code == 0
    assert "v2.pth: MobileNetV2 of torchvision" in done.stdout
    assert "licence: unknown; pretrain.init_licence=NAME puts it into the manifests" in done.stdout
    assert "mobile_lite0 does not hold it: it has" in done.stdout
    assert (
        "resnet50to101_init does not hold it: it has the family resnet, not mobile" in done.stdout
    )
