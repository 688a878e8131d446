"""Public weights: recognising files, and embedding them into a supernet."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import Bottleneck

from edgesearch.errors import CheckpointError, SpaceError
from edgesearch.families import load_space, space_from_dict
from edgesearch.space import SearchSpace
from edgesearch.supernet.public_weights import embed, member, read_public_weights
from edgesearch.supernet.supernet import Supernet
from edgesearch.supernet.weights import extract

State = dict[str, torch.Tensor]
CHOICES = {
    "stage_widths": [[48, 64, 80], [128], [256, 272], [512, 528]],
    "stage_depths": [[1, 2], [1, 3], [1], [1, 2]],
}


def as_after_training(network: ResNet) -> ResNet:
    """Give the normalisations scales, shifts and statistics as after training."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.5, 1.5),
            ):
                nn.init.uniform_(tensor, low, high)
    return network.eval()


@pytest.fixture(scope="module")
def trained() -> ResNet:
    """torchvision's ResNet with two blocks in stage 2."""
    torch.manual_seed(1)
    return as_after_training(ResNet(Bottleneck, [1, 2, 1, 1]))


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """A space that holds the trained network, but not in its exact depths."""
    return load_space("resnet50to101", stem_widths=[48, 64, 72], resolutions=[64], **CHOICES)


def features(network: ResNet, images: torch.Tensor) -> torch.Tensor:
    """Features (N, D) of torchvision's network."""
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    x = images
    for name in names:
        x = network.get_submodule(name)(x)
    return x.mean(dim=(2, 3))


def prefixed(prefix: str, **others: str) -> Callable[[State], dict]:
    """Writes a state with a prefix, beside states with other prefixes and twice the values."""

    def write(state: State) -> dict:
        found = {f"{prefix}{name}": value for name, value in state.items()}
        for other in others.values():
            found |= {f"{other}{name}": 2 * value for name, value in state.items()}
        return found

    return write


def numbered(state: State) -> dict:
    """As lightly does: the backbone is a sequence of torchvision's children."""
    order = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    parts = [(name, *name.split(".", 1)) for name in state if not name.startswith("fc.")]
    return {
        "state_dict": {
            f"backbone.{order.index(first)}.{rest}": state[name] for name, first, rest in parts
        }
    }


FILES = {
    "torchvision": (prefixed(""), "torchvision's form"),
    "data parallel": (prefixed("module."), "torchvision's form"),
    "moco": (
        lambda state: {
            "epoch": 200,
            "state_dict": prefixed("module.encoder_q.", key="module.encoder_k.")(state),
        },
        "MoCo",
    ),
    "gaia": (
        lambda state: {"state_dict": prefixed("encoder_q.0.", old="backbone.")(state)},
        "GAIA-ssl",
    ),
    "dino": (
        lambda state: {
            "student": prefixed("module.backbone.")({k: 2 * v for k, v in state.items()}),
            "teacher": prefixed("backbone.")(state),
        },
        "DINO",
    ),
    "lightly": (numbered, "lightly"),
}


@pytest.mark.parametrize("kind", FILES)
def test_network_of_each_kind_equals_its_source(kind: str, trained: ResNet, tmp_path: Path) -> None:
    write, name = FILES[kind]
    torch.save(write(trained.state_dict()), tmp_path / "weights.pth")
    images = torch.randn(2, 3, 64, 64)

    found = read_public_weights(tmp_path / "weights.pth")

    assert found.kind.startswith(name)
    assert str(found.space.largest) == "stem64_w64-128-256-512_d1-2-1-1_r224"
    with torch.no_grad():
        expected, got = features(trained, images), found.network()(images)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_largest_and_member_compute_the_features_of_the_source(
    trained: ResNet, space: SearchSpace, tmp_path: Path
) -> None:
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    supernet, images = Supernet(space), torch.randn(2, 3, 64, 64)

    place = embed(read_public_weights(tmp_path / "weights.pth"), space, supernet.backbone)

    assert str(place) == "stem64_w64-128-256-512_d1-3-1-1_r64"
    with torch.no_grad():
        expected = features(trained, images)
        scale = float(expected.abs().max())
        for architecture in (place, space.largest):
            network = extract(space, supernet.backbone.state_dict(), architecture)
            got = network(images)
            assert float((got[:, :2048] - expected).abs().max()) < 1e-5 * scale
            assert float(got[:, 2048:].abs().sum()) == 0 or got.shape[1] > 2048
        assert float(got[:, 2048:].abs().max()) > 0  # added channels can learn


def test_resnet50_is_a_member_of_the_space_for_public_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    resnet50 = as_after_training(ResNet(Bottleneck, [3, 4, 6, 3]))
    torch.save(resnet50.state_dict(), tmp_path / "weights.pth")
    space = load_space("resnet50to101_init", resolutions=[64])
    supernet, images = Supernet(space), torch.randn(2, 3, 64, 64)

    place = embed(read_public_weights(tmp_path / "weights.pth"), space, supernet.backbone)

    assert str(place) == "stem64_w64-128-256-512_d3-4-6-3_r64"
    with torch.no_grad():
        expected = features(resnet50, images)
        got = extract(space, supernet.backbone.state_dict(), place)(images)
        of_largest = extract(space, supernet.backbone.state_dict(), space.largest)(images)
    scale = float(expected.abs().max())
    assert float((got - expected).abs().max()) < 1e-5 * scale
    assert float((of_largest[:, :2048] - expected).abs().max()) < 1e-5 * scale


def test_narrow_subnets_keep_the_important_channels(
    trained: ResNet, space: SearchSpace, tmp_path: Path
) -> None:
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    supernet = Supernet(space)
    embed(read_public_weights(tmp_path / "weights.pth"), space, supernet.backbone)

    read = supernet.backbone.state_dict()["layer1.0.conv3.weight"][:256, :64]
    importance = read.abs().sum(dim=(0, 2, 3))

    assert torch.equal(importance, importance.sort(descending=True).values)


def test_added_weights_receive_gradients(
    trained: ResNet, space: SearchSpace, tmp_path: Path
) -> None:
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    supernet = Supernet(space)
    embed(read_public_weights(tmp_path / "weights.pth"), space, supernet.backbone)
    supernet.train()(torch.randn(8, 3, 64, 64)).square().sum().backward()

    parts = {
        "layer1.0.conv2": (slice(0, 64), slice(64, 80)),
        "layer4.0.downsample.0": slice(2048, 2112),
    }
    for name, part in parts.items():
        gradient = supernet.backbone.get_submodule(name).weight.grad
        assert float(gradient[part].abs().sum()) > 0, name


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stem_widths": [32]}, "stem_widths up to 32, not 64"),
        ({"stage_depths": [[1], [1], [1], [1]]}, "entry 2 of stage_depths up to 1, not 2"),
        ({"block": "basic"}, "block basic, not bottleneck"),
        ({"in_channels": 1}, "in_channels 1, not 3. For grey images, pretrain.init_grey=true sums"),
        ({"in_channels": 1, "stem_widths": [32]}, "in_channels 1, not 3. For grey images"),
    ],
)
def test_space_that_does_not_hold_it_is_named(
    change: dict, named: str, trained: ResNet, space: SearchSpace, tmp_path: Path
) -> None:
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    other = space_from_dict({**space.to_dict(), **change})
    with pytest.raises(SpaceError, match=named):
        member(read_public_weights(tmp_path / "weights.pth").space, other)


def test_in_grey_it_computes_the_same_of_grey_images_but_for_their_margins(
    trained: ResNet, space: SearchSpace, tmp_path: Path
) -> None:
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    public = read_public_weights(tmp_path / "weights.pth")
    pixels = torch.rand(2, 1, 64, 64)

    grey = public.in_grey()

    assert (grey.space.in_channels, grey.mean, grey.std) == (1, (0.449,), (0.226,))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (public.mean, public.std))
    images = {3: (pixels - mean) / std, 1: (pixels - 0.449) / 0.226}
    stems = {
        channels: each.network().bn1(each.network().conv1(images[channels]))
        for channels, each in ((3, public), (1, grey))
    }
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(stems[1][inner], stems[3][inner], atol=1e-5, rtol=1e-5)
    in_grey = space_from_dict({**space.to_dict(), "in_channels": 1})
    assert str(member(grey.space, in_grey)) == "stem64_w64-128-256-512_d1-3-1-1_r64"
    with pytest.raises(SpaceError, match="images in colour.*found: 1 input channels"):
        grey.in_grey()


class _RunsCode:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("executed",)


def _three_convolutions(state: State) -> dict:
    """The stem of timm's resnet50d."""
    rest = {name: value for name, value in state.items() if name != "conv1.weight"}
    return {**rest, "conv1.0.weight": torch.zeros(32, 3, 3, 3)}


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (lambda state: _RunsCode(), "would run code"),
        (
            lambda state: {"encoder.weight": torch.zeros(3)},
            "1 tensors of another one: encoder.weight. Known are residual networks in .*; Eff",
        ),
        (lambda state: {}, "no tensors"),
        (_three_convolutions, "conv1.0.weight"),
        (
            lambda state: {**state, "layer1.0.conv2.weight": torch.zeros(64, 2, 3, 3)},
            "layer1.0.conv2.weight of 64 × 2 × 3 × 3, not 64 × 64 × 3 × 3",
        ),
        (lambda state: {**state, "layer1.0.se.fc1.weight": torch.zeros(1)}, "layer1.0.se.fc1"),
    ],
)
def test_file_that_is_no_such_network_is_refused(
    write: Callable[[State], object], named: str, trained: ResNet, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(write(trained.state_dict()), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=named):
        read_public_weights(tmp_path / "weights.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04 cut", b"<html></html>"])
def test_damaged_file_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_public_weights(tmp_path / name)


def test_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("weights.pth", "weights.safetensors"):
        with pytest.raises(CheckpointError, match="no such file"):
            read_public_weights(tmp_path / name)
