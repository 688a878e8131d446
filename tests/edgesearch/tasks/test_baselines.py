"""Networks of torchvision as backbones compute what torchvision's compute."""

import pytest
import torch
from torchvision import models

from edgesearch.errors import SpaceError
from edgesearch.tasks.baselines import baseline

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
