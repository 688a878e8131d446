"""Networks of torchvision as backbones compute what torchvision's compute."""

import pytest
import torch
from torchvision import models

from edgesearch.errors import SpaceError
from edgesearch.tasks.baselines import Baseline, baseline

EXPECTED = {  # the layers before the head, as torchvision runs them
    "mobilenet_v2": lambda network, x: network.features(x),
    "mobilenet_v3_small": lambda network, x: network.features(x),
    "resnet18": lambda network, x: torch.nn.Sequential(*list(network.children())[:-2])(x),
    "regnet_y_400mf": lambda network, x: network.trunk_output(network.stem(x)),
}


@pytest.fixture
def weights(tmp_path):
    def write(name):
        network = models.get_model(name, weights=None).eval()
        torch.save(network.state_dict(), tmp_path / f"{name}.pth")
        return network, tmp_path / f"{name}.pth"

    return write


@pytest.mark.parametrize("name", EXPECTED)
def test_computes_the_last_map_of_torchvision(name, weights):
    network, path = weights(name)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = baseline(name, 64, 3, path).eval()(images)[-1]
        torch.testing.assert_close(found, EXPECTED[name](network, images), rtol=1e-5, atol=1e-5)


def test_grey_images_see_the_sum_of_the_colours(weights):
    _, path = weights("resnet18")
    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        found = baseline("resnet18", 64, 1, path).eval()(grey)[-1]
        same = baseline("resnet18", 64, 3, path).eval()(grey.expand(-1, 3, -1, -1))[-1]
    torch.testing.assert_close(found, same, rtol=1e-4, atol=1e-4)


def test_random_weights_are_those_of_the_seed():
    first, again, other = (baseline("resnet18", 32, 3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet81", "Did you mean resnet18"),
        ("ssdlite320_mobilenet_v3_large", "the name of a classifier"),
        ("fcn_resnet50", "the name of a classifier"),
        ("googlenet", "a residual, mobile, VGG, ConvNeXt or RegNet network"),
    ],
)
def test_other_names_are_refused(name, said):
    with pytest.raises(SpaceError, match=said):
        baseline(name, 64, 3)


def test_weights_of_another_network_are_refused(weights):
    _, path = weights("resnet18")
    with pytest.raises(SpaceError, match="weights of torchvision's mobilenet_v2"):
        baseline("mobilenet_v2", 64, 3, path)


class TestOfTimm:
    """Networks of timm; skipped where it is not installed."""

    NAME = "mobilenetv4_conv_small"

    @pytest.fixture
    def timm(self):
        return pytest.importorskip("timm")

    def test_features_are_those_before_the_classifier(self, timm, tmp_path):
        network = timm.create_model(self.NAME, pretrained=False).eval()
        torch.save(network.state_dict(), tmp_path / "w.pth")
        own = Baseline.find(f"timm/{self.NAME}", tmp_path / "w.pth", 3)
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            (found,) = own.backbone(64, dense=False, seed=0).eval()(images)
            wanted = network.forward_head(network.forward_features(images), pre_logits=True)
        torch.testing.assert_close(found[:, :, 0, 0], wanted, rtol=1e-5, atol=1e-5)
        assert own.normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def test_a_dense_head_gets_maps_of_several_sizes(self, timm):
        backbone = Baseline.find(f"timm/{self.NAME}", None, 1).backbone(64, dense=True, seed=0)
        assert backbone.shapes.sizes == (32, 16, 8, 4, 2)
        maps = backbone(torch.randn(2, 1, 64, 64))
        assert [each.shape[1] for each in maps] == list(backbone.shapes.channels)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("mobilenetv4_conv_smal", "Did you mean mobilenetv4_conv_small"),
            ("vit_tiny_patch16_224", "images of a size that timm/vit_tiny_patch16_224 takes"),
        ],
    )
    def test_what_it_lacks_or_cannot_take_is_told(self, timm, name, said):
        with pytest.raises(SpaceError) as error:
            Baseline.find(f"timm/{name}", None, 3).backbone(64, dense=False, seed=0)
        assert said in str(error.value)
