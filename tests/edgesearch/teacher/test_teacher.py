"""Teachers of every form against the network itself, and what is refused."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from edgesearch.errors import CheckpointError, TrainingError
from edgesearch.teacher.settings import TeacherSettings
from edgesearch.teacher.teacher import open_teacher

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CPU = torch.device("cpu")


class Network(nn.Module):
    """Two convolutions and pooling; optionally of uint8 images, channels last, or with maps."""

    def __init__(self, nhwc=False, pooled=True, constant=False, spoil=1.0):
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 5, 3, 2))
        self.nhwc, self.pooled, self.constant, self.spoil = nhwc, pooled, constant, spoil

    def forward(self, x):
        if self.nhwc:
            x = x.permute(0, 3, 1, 2).float() / 255
        maps = self.body(x) * self.spoil
        if self.constant:
            maps = maps * 0 + 1
        return maps.mean(dim=(2, 3)) if self.pooled else maps


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, 24, 24), generator=generator, dtype=torch.uint8)


def expected(images, network, normalised=True):
    """The embeddings by the network itself."""
    x = images.float() / 255
    if normalised:
        x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        return F.normalize(network.body(x).mean(dim=(2, 3)) * network.spoil, dim=1)


@pytest.fixture
def exported(tmp_path):
    def exported(network, shape, dtype=torch.float32, dynamic=(0,)):
        path = tmp_path / "teacher.onnx"
        axes = {"images": {axis: f"d{axis}" for axis in dynamic}}
        torch.onnx.export(
            network.eval(),
            (torch.zeros(shape, dtype=dtype),),
            path,
            input_names=["images"],
            output_names=["embedding"],
            dynamic_axes=axes,
            dynamo=False,
        )
        return path

    return exported


def scripted(network, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.trace(network.eval(), torch.zeros(1, 3, 24, 24)).save(folder / "teacher.pt")
    return folder / "teacher.pt"


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def opened(**values):
    return open_teacher(TeacherSettings.model_validate(values), None, CPU)


NORMALISED = {"mean": MEAN, "std": STD}


@pytest.mark.parametrize("pooled", [True, False], ids=["vectors", "maps"])
def test_onnx_of_float_images(images, exported, pooled):
    network = Network(pooled=pooled)
    teacher = opened(onnx=str(exported(network, (2, 3, 24, 24))), **NORMALISED)
    assert teacher.size == 24
    torch.testing.assert_close(teacher(images), expected(images, network), atol=1e-6, rtol=1e-5)


def test_onnx_of_one_image_at_a_time(images, exported):
    network = Network()
    teacher = opened(onnx=str(exported(network, (1, 3, 24, 24), dynamic=())), **NORMALISED)
    torch.testing.assert_close(teacher(images), expected(images, network), atol=1e-6, rtol=1e-5)


def test_onnx_of_bytes_with_channels_last(images, exported):
    network = Network(nhwc=True)
    path = exported(network, (2, 24, 24, 3), torch.uint8, dynamic=(0, 1, 2))
    teacher = opened(onnx=str(path), size=24)
    wanted = expected(images, network, normalised=False)
    torch.testing.assert_close(teacher(images), wanted, atol=1e-6, rtol=1e-5)


def test_blue_first_and_grey_images(images, exported):
    network = Network()
    path = str(exported(network, (2, 3, 24, 24)))
    wanted = expected(images.flip(1), network)
    torch.testing.assert_close(
        opened(onnx=path, bgr=True, **NORMALISED)(images), wanted, atol=1e-6, rtol=1e-5
    )
    grey = images[:, :1]
    wanted = expected(grey.expand(-1, 3, -1, -1), network)
    torch.testing.assert_close(opened(onnx=path, **NORMALISED)(grey), wanted, atol=1e-6, rtol=1e-5)


def test_torchscript(images, tmp_path):
    network = Network()
    teacher = opened(torchscript=str(scripted(network, tmp_path)), size=24, **NORMALISED)
    torch.testing.assert_close(teacher(images), expected(images, network), atol=1e-6, rtol=1e-5)


def test_torchvision_classifier_without_its_last_layer(images, tmp_path):
    from torchvision.models import mobilenet_v3_small

    torch.manual_seed(0)
    network = mobilenet_v3_small(weights=None).eval()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    file = {"weights": str(tmp_path / "weights.pth"), "size": 24}
    teacher = opened(torchvision="mobilenet_v3_small", **file)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = (images.float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[
        :, None, None
    ]
    with torch.no_grad():
        features = network.avgpool(network.features(x)).flatten(1)
        wanted = F.normalize(network.classifier[:-1](features), dim=1)
    torch.testing.assert_close(teacher(images), wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(CheckpointError, match="weights of ResNet in .*; found: no bn1"):
        opened(torchvision="resnet18", **file)
    with pytest.raises(TrainingError, match="name of an image classifier .* found: 'resnet_18'"):
        opened(torchvision="resnet_18", **file)


def test_digest_depends_on_file_and_form(exported):
    path = str(exported(Network(), (2, 3, 24, 24)))
    first = opened(onnx=path, **NORMALISED).digest
    assert opened(onnx=path, **NORMALISED).digest == first
    others = [opened(onnx=path, mean=MEAN, std=MEAN), opened(onnx=path, bgr=True, **NORMALISED)]
    exported(Network(spoil=2.0), (2, 3, 24, 24))
    others.append(opened(onnx=path, **NORMALISED))
    assert len({first, *(other.digest for other in others)}) == 4


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (Network(constant=True), "a cosine of 1.000000 between two images"),
        (Network(spoil=float("nan")), "NaN or infinite values"),
        (Network(spoil=0.0), "only zeros for an image"),
    ],
    ids=["constant", "nan", "zero"],
)
def test_useless_embeddings_are_refused_on_trial(images, exported, network, found):
    teacher = opened(onnx=str(exported(network, (2, 3, 24, 24))), **NORMALISED)
    with pytest.raises(TrainingError, match=found):
        teacher.try_on(images[0], images[1])


def test_embedding_length_is_found_on_trial(images, exported):
    teacher = opened(onnx=str(exported(Network(), (2, 3, 24, 24))), **NORMALISED)
    assert teacher.try_on(images[0], images[0]) == 5


class TestMaps:
    """Of a network of each kind, place by place; the body of `Network` makes 5 × 5 places."""

    def expected(self, images, network, grid):
        """The maps by the network itself."""
        x = images.float() / 255
        x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        with torch.no_grad():
            maps = network(x)
        return F.normalize(F.adaptive_avg_pool2d(maps, grid), dim=1)

    @pytest.mark.parametrize("kind", ["onnx", "torchscript"])
    def test_of_a_file(self, images, exported, tmp_path, kind):
        network = Network(pooled=False)
        path = exported(network, (2, 3, 24, 24))
        if kind == "torchscript":
            path = scripted(network, tmp_path)
        teacher = opened(**{kind: str(path), "size": 24, **NORMALISED})
        assert [teacher.grid_of(images[0], most) for most in (2, 5, 9)] == [(2, 2), (5, 5), (5, 5)]
        for grid in (5, 2):
            found = teacher.maps(images, (grid, grid))
            torch.testing.assert_close(
                found, self.expected(images, network.body, grid), atol=1e-5, rtol=1e-5
            )
        assert teacher.try_on(images[0], images[1], (2, 2)) == 5

    def test_of_public_weights(self, images, tmp_path):
        from torchvision.models import ResNet
        from torchvision.models.resnet import Bottleneck

        torch.manual_seed(2)
        network = ResNet(Bottleneck, [1, 1, 1, 1]).eval()
        torch.save(network.state_dict(), tmp_path / "weights.pth")
        settings = TeacherSettings.model_validate({"init": True, "size": 64, **NORMALISED})
        teacher = open_teacher(settings, tmp_path / "weights.pth", CPU)
        large = F.interpolate(images, 64)
        assert teacher.grid_of(large[0], 4) == (2, 2)
        body = nn.Sequential(*list(network.children())[:-2])
        found = teacher.maps(large, (2, 2))
        torch.testing.assert_close(found, self.expected(large, body, 2), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"])
    def test_of_torchvision(self, images, tmp_path, name):
        """What is pooled by a module, by a function, and where it is not to be had."""
        from torchvision.models import get_model

        torch.manual_seed(0)
        network = get_model(name, weights=None).eval()
        torch.save(network.state_dict(), tmp_path / "weights.pth")
        file = {"weights": str(tmp_path / "weights.pth"), "size": 64}
        teacher = opened(torchvision=name, **file, **NORMALISED)
        large = F.interpolate(images, 64)
        if name == "shufflenet_v2_x0_5":
            assert teacher.grid_of(large[0], 4) is None
            return
        assert teacher.grid_of(large[0], 4) == (2, 2)
        body = network.features if name == "mobilenet_v2" else list(network.children())[:-2]
        wanted = self.expected(large, nn.Sequential(*body), 2)
        torch.testing.assert_close(teacher.maps(large, (2, 2)), wanted, atol=1e-5, rtol=1e-5)

    def test_of_timm(self, images, tmp_path):
        timm = pytest.importorskip("timm", reason="timm is not installed")
        torch.manual_seed(0)
        network = timm.create_model("resnet18", pretrained=False).eval()
        torch.save(network.state_dict(), tmp_path / "weights.pth")
        file = {"weights": str(tmp_path / "weights.pth"), "size": 64, **NORMALISED}
        teacher, large = opened(timm="resnet18", **file), F.interpolate(images, 64)
        wanted = self.expected(large, network.forward_features, 2)
        torch.testing.assert_close(teacher.maps(large, (2, 2)), wanted, atol=1e-5, rtol=1e-5)

    def test_there_are_none_in_an_embedding_or_a_single_place(self, images, exported):
        single = nn.Sequential(Network(pooled=False), nn.AdaptiveAvgPool2d(1))
        for network in (Network(), single):
            teacher = opened(onnx=str(exported(network, (2, 3, 24, 24))), **NORMALISED)
            assert teacher.grid_of(images[0], 4) is None

    @pytest.mark.parametrize(
        ("network", "found"),
        [
            (Network(pooled=False, constant=True), "a cosine of 1.000000 between two images"),
            (Network(pooled=False, spoil=float("nan")), "NaN or infinite values"),
            (Network(pooled=False, spoil=0.0), "only zeros for an image"),
        ],
        ids=["constant", "nan", "zero"],
    )
    def test_useless_ones_are_refused_on_trial(self, images, exported, network, found):
        teacher = opened(onnx=str(exported(network, (2, 3, 24, 24))), **NORMALISED)
        with pytest.raises(TrainingError, match=found):
            teacher.try_on(images[0], images[1], (2, 2))

    def test_a_single_bad_place_is_refused(self, images, tmp_path):
        class Holed(Network):
            def forward(self, x):
                maps = super().forward(x)
                maps[:, 2, 1, 1] = float("nan")
                return maps

        path = scripted(Holed(pooled=False), tmp_path)
        teacher = opened(torchscript=str(path), size=24, **NORMALISED)
        with pytest.raises(TrainingError, match="NaN or infinite values"):
            teacher.maps(images, (5, 5))

    def test_channels_that_come_last_are_refused(self, images, exported):
        class Last(Network):
            def forward(self, x):
                return super().forward(x).permute(0, 2, 3, 1)[:, :, :4]

        teacher = opened(onnx=str(exported(Last(pooled=False), (2, 3, 24, 24))), **NORMALISED)
        for use in (teacher, lambda images: teacher.grid_of(images[0], 4)):
            with pytest.raises(TrainingError, match="found: . × 5 × 4 × 5, such as channels that"):
                use(images)

    def test_rows_of_places_are_no_maps(self, images, exported):
        """Such as the tokens of a transformer."""
        network = nn.Sequential(Network(pooled=False), nn.Flatten(2))
        teacher = opened(onnx=str(exported(network, (2, 3, 24, 24))), **NORMALISED)
        assert teacher.grid_of(images[0], 4) is None
        with pytest.raises(
            TrainingError, match=r"or map \(N, D, H, W\), .*; found: 1 × 5 × 25 for"
        ):
            teacher.try_on(images[0], images[1])


def test_unknown_form_is_asked_for(exported, tmp_path):
    path = str(exported(Network(), (2, 3, 24, 24), dynamic=(0, 2, 3)))
    message = "no pretrain.teacher.size and no pretrain.teacher.mean and no pretrain.teacher.std"
    with pytest.raises(TrainingError, match=message):
        opened(onnx=path)
    with pytest.raises(TrainingError, match="one input of images"):
        opened(onnx=str(exported(nn.Linear(4, 4), (2, 4))))
    with pytest.raises(TrainingError, match=r"one of embedding; found: 'logits'"):
        opened(onnx=str(exported(Network(), (2, 3, 24, 24))), output="logits", **NORMALISED)


def test_form_that_a_file_does_not_take_is_refused(exported):
    path = str(exported(Network(), (2, 3, 24, 24)))
    with pytest.raises(TrainingError, match="size 24, the only one that .* takes; found: 32"):
        opened(onnx=path, size=32, **NORMALISED)
    of_bytes = str(exported(Network(nhwc=True), (2, 24, 24, 3), torch.uint8, dynamic=(0, 1, 2)))
    with pytest.raises(TrainingError, match="no pretrain.teacher.mean and std for"):
        opened(onnx=of_bytes, size=24, **NORMALISED)


def test_size_of_bytes_is_asked_for_too(exported):
    of_bytes = str(exported(Network(nhwc=True), (2, 24, 24, 3), torch.uint8, dynamic=(0, 1, 2)))
    with pytest.raises(TrainingError, match=r"no pretrain.teacher.size, and .* training\.$"):
        opened(onnx=of_bytes)


def test_onnx_of_a_fixed_batch(images, exported):
    network = Network()
    teacher = opened(onnx=str(exported(network, (2, 3, 24, 24), dynamic=())), **NORMALISED)
    torch.testing.assert_close(teacher(images), expected(images, network), atol=1e-6, rtol=1e-5)


def test_images_that_a_network_does_not_take(images, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5))
    teacher = opened(torchscript=str(scripted(network, tmp_path)), size=20, **NORMALISED)
    with pytest.raises(TrainingError, match="images of 20 × 20 pixels; found: teacher.pt: "):
        teacher.try_on(*images[:2, :, :20, :20])


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_file_that_is_none(tmp_path, kind):
    for content, found in ((None, "no such file"), (b"", ""), (b"<html>", "")):
        if content is not None:
            (tmp_path / "teacher").write_bytes(content)
        with pytest.raises(CheckpointError, match=f"file at .*teacher; found: {found}"):
            opened(**{kind: str(tmp_path / "teacher"), "size": 24, **NORMALISED})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one of onnx, torchscript, torchvision, timm, init is required"),
        ({"onnx": "a", "timm": "b", "weights": "c"}, "exactly one of"),
        ({"timm": "resnet50"}, "`weights` is required with timm"),
        ({"onnx": "a", "weights": "b"}, "`weights` has no effect with onnx"),
        ({"torchscript": "a", "output": "b"}, "`output` has no effect with torchscript"),
        ({"onnx": "a", "dense": True, "loss": "queue"}, "the loss cosine is required with dense"),
    ],
)
def test_settings(values, message):
    with pytest.raises(ValidationError, match=message):
        TeacherSettings.model_validate(values)


def test_public_weights_are_their_own_teacher(images, tmp_path):
    from torchvision.models import ResNet
    from torchvision.models.resnet import Bottleneck

    torch.manual_seed(2)
    network = ResNet(Bottleneck, [1, 1, 1, 1]).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    settings = TeacherSettings.model_validate({"init": True, "size": 24})
    found = open_teacher(settings, tmp_path / "weights.pth", CPU)(images)
    network.fc = nn.Identity()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        x = (images.float() / 255 - mean[:, None, None]) / std[:, None, None]
        torch.testing.assert_close(found, F.normalize(network(x), dim=1), atol=1e-5, rtol=1e-5)
    with pytest.raises(CheckpointError, match="no pretrain.init"):
        open_teacher(settings, None, CPU)


def test_timm_classifier_without_its_last_layer(images, tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    file = {"weights": str(tmp_path / "weights.pth"), "size": 24, **NORMALISED}
    x = images.float() / 255
    x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        wanted = F.normalize(network.forward_head(network.forward_features(x), pre_logits=True))
    torch.testing.assert_close(
        opened(timm="resnet18", **file)(images), wanted, atol=1e-5, rtol=1e-5
    )
