"""From one ONNX file to all that devices load."""

import importlib.util
import json
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors import safe_open

from devices import DeviceSpec, read_engine_header
from edgesearch.errors import DifferenceError, ExportError
from edgesearch.export.engines import (
    ONNX_FILE,
    WEIGHTS_FILE,
    TensorRTTarget,
    build_engines,
    save_weights,
)
from edgesearch.export.verify import KnnImages
from edgesearch.families.resnet.network import ResNet
from edgesearch.formats.fp16 import FP16
from edgesearch.formats.fp32 import FP32
from edgesearch.formats.int8 import INT8
from edgesearch.formats.onnx_export import export_network
from edgesearch.formats.precision import Calibration

CAPABILITIES = ("SM75", "SM86", "SM89", "SM120")
needs_tensorrt = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="tensorrt-rtx-cu13-bindings are not installed",
)


@pytest.fixture
def quantized(exported, images, tmp_path):
    """Writes the network in eight bits beside that in single precision; the folder."""

    def write(form, name=INT8.file):
        shutil.copy(exported / ONNX_FILE, tmp_path)
        batches = np.split(images.numpy()[:16], 16)
        path = tmp_path / name
        INT8.write(tmp_path / ONNX_FILE, path, form, calibration=Calibration(batches))
        return tmp_path

    return write


@pytest.fixture(scope="module")
def built(exported, subnet, images, tmp_path_factory):
    """A folder with all engines, and what is known of them."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("tensorrt-rtx-cu13-bindings are not installed")
    folder = tmp_path_factory.mktemp("engines")
    shutil.copy(exported / ONNX_FILE, folder)
    FP16.write(folder / ONNX_FILE, folder / FP16.file, "fp16")
    engines = build_engines(folder, subnet, images, TensorRTTarget(CAPABILITIES), FP32, FP16.file)
    return SimpleNamespace(folder=folder, files=engines.files)


def test_every_listed_file_is_there_and_no_other(built):
    names = {"subnet.onnx", "subnet.ort", "subnet.fp16.onnx", "subnet.fp16.engine"}
    assert set(built.files) == names
    assert {path.name for path in built.folder.iterdir()} == names


def test_what_can_run_was_compared_on_all_images(built, images):
    for name, most in (("subnet.onnx", 1e-5), ("subnet.ort", 1e-5), ("subnet.fp16.onnx", 5e-2)):
        about = built.files[name]
        assert about["runtime"] == "onnxruntime"
        assert about["parity"]["images"] == len(images)
        assert about["parity"]["max_difference"] < most
        assert about["parity"]["min_cosine"] > 0.999
    assert built.files["subnet.fp16.onnx"]["parity"]["max_difference"] > 1e-6


def test_engine_says_what_it_is_for(built):
    about = built.files["subnet.fp16.engine"]
    header = read_engine_header(built.folder / "subnet.fp16.engine")
    assert set(header.compute_capabilities) == set(CAPABILITIES)
    assert about["compute_capabilities"] == list(header.compute_capabilities)
    assert about["runtime_version"] == header.runtime_version
    assert about["parity"] is None
    assert "not run" in about["parity_note"]


@needs_tensorrt
def test_an_engine_in_single_precision(exported, subnet, images, tmp_path):
    shutil.copy(exported / ONNX_FILE, tmp_path)
    files = build_engines(tmp_path, subnet, images, TensorRTTarget(("SM86", "SM89"), "fp32")).files
    assert set(files) == {"subnet.onnx", "subnet.ort", "subnet.fp32.engine"}
    header = read_engine_header(tmp_path / "subnet.fp32.engine")
    assert header.compute_capabilities == ("SM86", "SM89")


@needs_tensorrt
@pytest.mark.parametrize("precision", [FP32, INT8], ids=["fp32", "int8"])
def test_an_engine_in_eight_bits(quantized, subnet, images, precision):
    folder = quantized("u8s8")
    source = quantized("s8s8-symmetric", "subnet.int8-tensorrt.onnx") / "subnet.int8-tensorrt.onnx"
    target = TensorRTTarget(("SM75", "SM89", "SM120"), "int8")
    files = build_engines(folder, subnet, images, target, precision, source.name).files
    header = read_engine_header(folder / "subnet.int8.engine")
    assert header.compute_capabilities == ("SM75", "SM89", "SM120")
    assert files["subnet.int8.engine"]["precision"] == "int8"
    about = files[source.name]
    assert about["precision"] == "int8"
    assert 0.98 <= about["parity"]["min_cosine"] < 0.999999
    assert (INT8.file in files) == (precision is INT8)


@needs_tensorrt
@pytest.mark.parametrize("precision", [FP16, INT8], ids=["fp16", "int8"])
def test_an_engine_is_built_from_the_measured_file(quantized, subnet, images, precision):
    folder = quantized("s8s8-symmetric")
    FP16.write(folder / ONNX_FILE, folder / FP16.file, "fp16")
    before = (folder / precision.file).stat()
    target = TensorRTTarget(("SM86", "SM89"), precision.name)
    files = build_engines(folder, subnet, images, target, precision, precision.file).files
    assert {precision.file, f"subnet.{precision.name}.engine"} < set(files)
    after = (folder / precision.file).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_no_engine_where_none_is_wanted(exported, subnet, images, tmp_path):
    shutil.copy(exported / ONNX_FILE, tmp_path)
    engines = build_engines(tmp_path, subnet, images, None)
    assert set(engines.files) == {"subnet.onnx", "subnet.ort"}
    assert engines.left_out == {}


def test_accuracies_before_and_after_are_told_of_every_format(quantized, subnet, images):
    folder = quantized("u8s8")
    kinds = torch.arange(30) % 3
    shown = (images[:3, :, :, :] * 40 + 128).clamp(0, 255).to(torch.uint8)[kinds]
    mistaken = torch.where(torch.arange(30) < 20, kinds, 2 - kinds)  # of the last ten, seven
    knn = KnnImages(shown, kinds, shown, mistaken, lambda part: (part.float() - 128) / 40)
    files = build_engines(folder, subnet, images, None, INT8, knn=knn, knn_glance=20).files
    assert set(files) == {"subnet.onnx", "subnet.ort", "subnet.int8.onnx", "subnet.int8.ort"}
    for name, about in files.items():
        # Only eight bits are judged by it, and looked at for longer.
        count, share = (30, 23 / 30) if "int8" in name else (20, 1)
        assert about["parity"]["knn_images"] == count
        assert about["parity"]["knn_before"] == about["parity"]["knn_after"] == share


def test_what_lacks_labels_to_be_judged_by_says_so(quantized, subnet, images):
    folder = quantized("u8s8")
    files = build_engines(folder, subnet, images, None, INT8).files
    wanted = "not judged by kNN accuracy: there are no labeled images. Put each"
    assert {name for name, about in files.items() if "knn_note" in about} == {
        "subnet.int8.onnx",
        "subnet.int8.ort",
    }
    for name in ("subnet.int8.onnx", "subnet.int8.ort"):
        assert files[name]["parity"]["knn_after"] is None
        assert files[name]["knn_note"].startswith(wanted)


def test_fewer_labels_than_a_batch_judge_nothing_and_say_so(subnet, images, tmp_path):
    export_network(
        subnet, tmp_path / ONNX_FILE, input_shape=(5, 1, 16, 16), output_names=["features"]
    )
    batches = np.split(images.numpy()[:15], 3)
    ranges = Calibration(batches)
    INT8.write(tmp_path / ONNX_FILE, tmp_path / INT8.file, "u8s8", calibration=ranges)
    shown = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)
    knn = KnnImages(shown, torch.zeros(4), shown, torch.zeros(4), lambda part: part.float())
    files = build_engines(tmp_path, subnet, images, None, INT8, knn=knn, batch=5).files
    wanted = "fewer labeled images than a batch of 5. Add some, or set a smaller device.batch"
    assert wanted in files["subnet.int8.onnx"]["knn_note"]


def test_a_file_of_another_network_is_refused(exported, space, images, tmp_path):
    shutil.copy(exported / ONNX_FILE, tmp_path)
    other = ResNet(space.blocks(space.largest))
    with pytest.raises(ExportError, match=r"subnet\.onnx equal to the trained network"):
        build_engines(tmp_path, other, images, None)
    assert not (tmp_path / "subnet.ort").exists()


@pytest.mark.parametrize("precision", [FP32, FP16], ids=["fp32", "fp16"])
def test_a_different_file_is_left_out_unless_the_device_runs_it(
    exported, subnet, images, tmp_path, precision
):
    """Half precision that differs: of a device in single precision, the other files are made."""
    shutil.copy(exported / ONNX_FILE, tmp_path)
    model = onnx.load(exported / ONNX_FILE)
    changed = next(t for t in model.graph.initializer if t.name == "layer2.0.conv1.weight")
    changed.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(changed), changed.name))
    onnx.save(model, tmp_path / "changed.onnx")
    FP16.write(tmp_path / "changed.onnx", tmp_path / FP16.file, "fp16")
    (tmp_path / "changed.onnx").unlink()

    def build():
        target = TensorRTTarget(CAPABILITIES)
        return build_engines(tmp_path, subnet, images, target, precision, FP16.file)

    if precision is FP16:
        with pytest.raises(DifferenceError, match=r"subnet\.fp16\.onnx equal to the trained"):
            build()
        return
    engines = build()
    assert {path.name for path in tmp_path.iterdir()} == {"subnet.onnx", "subnet.ort"}
    assert set(engines.files) == {"subnet.onnx", "subnet.ort"}
    assert set(engines.left_out) == {FP16.file, "subnet.fp16.engine"}
    assert "the first layer that differs is layer2.0" in engines.left_out["subnet.fp16.engine"]


def test_weights_of_the_subnet_round_trip(subnet, tmp_path):
    save_weights(subnet, tmp_path / WEIGHTS_FILE, {"space": "toy"})
    state = subnet.state_dict()
    with safe_open(tmp_path / WEIGHTS_FILE, "pt") as file:
        assert json.loads(file.metadata()["edgesearch"]) == {"space": "toy"}
        assert set(file.keys()) == set(state)
        assert all(file.get_tensor(name).equal(state[name]) for name in state)


@pytest.mark.parametrize(
    ("runtime", "precision", "wanted", "chosen"),
    [
        ("onnxruntime", "fp32", None, "fp16"),
        ("onnxruntime", "int8", None, "fp16"),
        ("tensorrt", "fp32", None, "fp16"),
        ("tensorrt", "int8", None, "int8"),
        ("tensorrt-rtx", "int8", None, "int8"),
        ("tensorrt-rtx", "int8", "fp16", "fp16"),
    ],
)
def test_engines_are_in_the_precision_that_the_device_runs(runtime, precision, wanted, chosen):
    device = DeviceSpec("board", runtime, precision)
    target = TensorRTTarget.of_device(device, ["SM86"], wanted)
    assert target == TensorRTTarget(("SM86",), chosen)
