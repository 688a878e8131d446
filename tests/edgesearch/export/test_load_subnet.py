"""Weights of winners back in Python, and as backbones of torchvision's detectors and segmenters."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.segmentation.fcn import FCN, FCNHead

import edgesearch
from edgesearch.errors import ExportError
from edgesearch.export.engines import WEIGHTS_FILE, save_weights
from edgesearch.export.manifest import write_manifest
from edgesearch.families.resnet.network import ResNet
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.supernet.projector import Projector
from edgesearch.supernet.subnet import Subnet

SPACE = ResNetSpace(
    name="detector",
    block="bottleneck",
    stem="imagenet",
    stem_widths=(8,),
    stage_widths=((4, 8), (8,), (8,), (8, 16)),
    stage_depths=((1, 2), (1,), (1,), (1,)),
    resolutions=(64,),
)


def metadata(output, space=SPACE):
    return {
        "space": space.name,
        "architecture": json.dumps(dict(space.largest)),
        "preprocess": json.dumps({"resolution": 64}),
        "classes": json.dumps(["cat", "dog"]),
        "output": output,
    }


def make(output):
    torch.manual_seed(0)
    network = ResNet(SPACE.blocks(SPACE.largest))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
    fc = nn.Linear(network.feature_dim, 2) if output == "logits" else None
    projector = Projector(network.feature_dim, 12, 6, True) if output == "embeddings" else None
    return Subnet(network, output, fc, projector).eval()


def write(folder, output="features"):
    """A winner's folder as an export leaves it, and the network."""
    subnet = make(output)
    about = {**metadata(output), "space_definition": json.dumps(SPACE.to_dict())}
    save_weights(subnet, folder / WEIGHTS_FILE, about)
    write_manifest(folder, {WEIGHTS_FILE: {}}, {"space": SPACE.to_dict()})
    return subnet


@torch.no_grad()
@pytest.mark.parametrize("output", ["features", "logits", "embeddings", "stages"])
def test_gives_what_was_exported(tmp_path, output):
    subnet = write(tmp_path, output)
    images = torch.randn(2, 3, 64, 64)
    for path in (tmp_path, tmp_path / WEIGHTS_FILE, str(tmp_path)):
        loaded = edgesearch.load_subnet(path)
        assert loaded.output == output
        assert not loaded.training
        assert all(parameter.requires_grad for parameter in loaded.parameters())
        expected, found = subnet(images), loaded(images)
        if output != "stages":
            expected, found = [expected], [found]
        assert len(expected) == len(found)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert loaded.about["classes"] == ["cat", "dog"]
    assert loaded.about["space"] == SPACE.to_dict()


def test_the_file_alone_will_do(tmp_path):
    write(tmp_path)
    (tmp_path / "manifest.json").unlink()
    assert edgesearch.load_subnet(tmp_path).output == "features"


def test_another_output_can_be_asked_for(tmp_path):
    write(tmp_path, "logits")
    stages = edgesearch.load_subnet(tmp_path, "stages")(torch.randn(1, 3, 64, 64))
    assert [tuple(stage.shape[1:]) for stage in stages] == [
        (32, 16, 16), (32, 8, 8), (32, 4, 4), (64, 2, 2)
    ]  # fmt: skip
    message = "an output that .* has: features, stages, logits; found: 'embeddings'. Choose"
    with pytest.raises(ExportError, match=message):
        edgesearch.load_subnet(tmp_path, "embeddings")


def test_is_the_backbone_of_a_detector(tmp_path):
    write(tmp_path)
    subnet = edgesearch.load_subnet(tmp_path)
    layers = {name: str(number) for number, name in enumerate(subnet.stage_names)}
    backbone = BackboneWithFPN(subnet, layers, subnet.stage_channels, 16)
    detector = FasterRCNN(backbone, num_classes=3, min_size=64, max_size=64).train()
    target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    losses = detector([torch.rand(3, 64, 64)], [target])
    sum(losses.values()).backward()
    gradient = subnet.conv1.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0
    (found,) = detector.eval()([torch.rand(3, 64, 64)])
    assert set(found) == {"boxes", "labels", "scores"}


def test_is_the_backbone_of_a_segmenter(tmp_path):
    write(tmp_path)
    subnet = edgesearch.load_subnet(tmp_path)
    backbone = IntermediateLayerGetter(subnet, {"layer4": "out"})
    segmenter = FCN(backbone, FCNHead(subnet.stage_channels[-1], 5)).train()
    out = segmenter(torch.rand(2, 3, 64, 64))["out"]
    assert out.shape == (2, 5, 64, 64)
    out.mean().backward()
    assert subnet.conv1.weight.grad.abs().max() > 0


def test_a_changed_file_is_refused(tmp_path):
    write(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    tensors["bn1.bias"] += 1
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ExportError, match="with the SHA-256 .* of its manifest.json; found: "):
        edgesearch.load_subnet(tmp_path)


@pytest.mark.parametrize(("content", "fault"), [(b"{", "JSONDecode"), (b"\xff", "UnicodeDecode")])
def test_a_damaged_manifest_is_refused(tmp_path, content, fault):
    write(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ExportError, match=f"a complete manifest.json beside it; found: {fault}"):
        edgesearch.load_subnet(tmp_path)


def test_a_pickle_is_never_opened(tmp_path):
    path = tmp_path / "subnet.safetensors"
    path.write_bytes(pickle.dumps(make("features").state_dict()))
    with pytest.raises(ExportError, match="weights in safetensors format in .*subnet.safetensors"):
        edgesearch.load_subnet(path)


def test_foreign_weights_are_refused(tmp_path):
    with pytest.raises(ExportError, match="weights in safetensors format in .*No such file"):
        edgesearch.load_subnet(tmp_path / "missing.safetensors")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ExportError, match="the weights of one subnet in .*KeyError"):
        edgesearch.load_subnet(tmp_path)
    state = {**make("features").state_dict(), "more": torch.zeros(1)}
    about = {**metadata("features"), "space_definition": json.dumps(SPACE.to_dict())}
    save_file(state, tmp_path / WEIGHTS_FILE, {"edgesearch": json.dumps(about)})
    with pytest.raises(ExportError, match="the weights of one subnet in .*RuntimeError"):
        edgesearch.load_subnet(tmp_path)
