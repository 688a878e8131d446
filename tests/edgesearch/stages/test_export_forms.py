"""What winners can be exported as: outputs, open batches, eight bits."""

import re
import shutil

import numpy as np
import onnxruntime
import pytest
import torch

import edgesearch
from devices import load_device
from edgesearch.errors import ExportError
from edgesearch.export.deployable import write_for_tensorrt, write_in_format
from edgesearch.export.engines import ONNX_FILE
from edgesearch.export.exportable import check_batch
from edgesearch.formats.int8 import INT8

NO_ENGINES = "export.tensorrt="
MANIFEST = "engines/w0/manifest.json"


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("output", "names"),
    [("embeddings", ["embeddings"]), ("stages", ["layer1", "layer2"]), ("logits", ["logits"])],
)
def test_outputs_are_those_of_the_loaded_subnet(chain, output, names):
    chain.passes("export", NO_ENGINES, f"export.output={output}")
    folder = chain.output_dir / "engines/w0"
    session = session_of(folder / "subnet.onnx")
    assert [node.name for node in session.get_outputs()] == names
    assert chain.read(MANIFEST)["output_names"] == names
    subnet = edgesearch.load_subnet(folder)
    assert subnet.output == output
    pixels = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        expected = subnet(pixels)
    found = session.run(None, {"images": pixels.numpy()})
    for wanted, given in zip(expected if output == "stages" else [expected], found, strict=True):
        scale = float(wanted.abs().max())
        np.testing.assert_allclose(given, wanted.numpy(), atol=1e-4 * scale)
        assert scale > 0
    if output == "embeddings":
        assert np.linalg.norm(found[0], axis=1) == pytest.approx(1, abs=1e-5)
    if output == "logits":
        assert found[0].shape == (1, 10)


def test_an_open_batch(chain):
    chain.passes("export", "export.batch=dynamic")
    manifest = chain.read(MANIFEST)
    assert (manifest["batch"], manifest["quantization"]) == ("dynamic", None)
    assert "subnet.fp16.engine" in manifest["files"]
    pixels = np.random.default_rng(0).standard_normal((5, 1, 16, 16)).astype(np.float32)
    for name in ("subnet.onnx", "subnet.ort", "subnet.fp16.onnx"):
        session = session_of(chain.output_dir / "engines/w0" / name)
        assert session.get_inputs()[0].shape[1:] == [1, 16, 16]
        (together,) = session.run(None, {"images": pixels})
        alone = [session.run(None, {"images": image[None]})[0][0] for image in pixels]
        np.testing.assert_allclose(together, alone, atol=1e-2 * np.abs(alone).max())
    assert chain.json("export", "export.batch=dynamic")["skipped"]


def test_no_open_batch_for_tensorrt():
    with pytest.raises(
        ExportError, match="export.batch=fixed for tensorrt, which compiles a fixed batch size"
    ):
        check_batch(load_device("local-gpu"), "dynamic")
    check_batch(load_device("local-gpu"), "fixed")
    check_batch(load_device("local-cpu"), "dynamic")


@pytest.mark.parametrize(("images", "batch"), [(0, 1), (3, 4)])
def test_eight_bits_need_images_to_be_calibrated_on(tmp_path, images, batch):
    message = rf"at least {batch} images \(one batch\) to convert .*; found: {images}\."
    with pytest.raises(ExportError, match=message):
        write_in_format(tmp_path, "u8s8", torch.zeros(images, 1, 16, 16), batch)


def test_eight_bits_of_a_tensorrt_device_are_made_once(finished, tmp_path):
    shutil.copy(finished[0].output_dir / "engines/w0" / ONNX_FILE, tmp_path)
    images = torch.randn(4, 1, 16, 16)
    of_tensorrt = load_device("rtx-pc", precision="int8")
    write_in_format(tmp_path, of_tensorrt.number_format(), images, 1)
    assert write_for_tensorrt(tmp_path, of_tensorrt, INT8, images, "minmax") == INT8.file
    (measured,) = set(tmp_path.iterdir()) - {tmp_path / ONNX_FILE}
    of_processor = load_device("local-cpu", precision="int8")
    name = write_for_tensorrt(tmp_path, of_processor, INT8, images, "minmax")
    assert name == "subnet.int8-tensorrt.onnx"
    assert (tmp_path / name).read_bytes() == measured.read_bytes()


@pytest.fixture(scope="module")
def in_eight_bits(finished, tmp_path_factory):
    """A copy that was searched for a device in eight bits."""
    chain = finished[0].copied(tmp_path_factory.mktemp("int8"))
    for stage in ("profile", "search"):
        chain.passes(stage, "device.precision=int8")
    return chain


def test_eight_bits_are_judged_by_knn(in_eight_bits, tmp_path):
    """The network of the tests is tiny and hardly trained: it may lose too much, and says so."""
    chain = in_eight_bits.copied(tmp_path)
    eight_bits = ("device.precision=int8", "export.quantization=percentile", NO_ENGINES)
    done = chain.call("export", *eight_bits)
    if done.returncode != 0:
        assert done.returncode == 2, done.stderr
        found = re.search(r"found: ([\d.]+)% before and ([\d.]+)% after, on 359", done.stderr)
        assert found is not None, done.stderr
        assert float(found[1]) - float(found[2]) > 0.9
        return
    manifest = chain.read(MANIFEST)
    assert manifest["quantization"] == "percentile"
    assert manifest["kit_file"] == manifest["measured_file"] == "subnet.int8.onnx"
    for name in ("subnet.int8.onnx", "subnet.int8.ort"):
        parity = manifest["files"][name]["parity"]
        assert parity["min_cosine"] >= 0.98
        assert parity["knn_before"] - parity["knn_after"] <= 0.01
        assert 0.5 < parity["same_as_pytorch"] <= 1
        assert parity["knn_images"] == 359
    assert "kNN PyTorch" in done.stdout
    assert manifest["files"]["subnet.onnx"]["parity"]["same_as_pytorch"] == 1


def test_without_labels_eight_bits_are_not_judged_and_it_is_said(in_eight_bits, tmp_path):
    chain = in_eight_bits.copied(tmp_path)
    eight_bits = ("device.precision=int8", "data.holdout=0")
    chain.passes("search", *eight_bits)
    done = chain.passes("export", *eight_bits, NO_ENGINES)
    both = "subnet.int8.onnx, subnet.int8.ort"
    said = f"{both}: not judged by kNN accuracy: there are no labeled images. Put each"
    assert done.stderr.count(f"w0: {said}") == 1
    assert done.stdout.count(f"\n  {said}") == 1
    files = chain.read(MANIFEST)["files"]
    assert "data.holdout above 0" in files["subnet.int8.onnx"]["knn_note"]
    assert "knn_note" not in files["subnet.onnx"]


def test_engines_in_eight_bits_for_a_device_of_single_precision(chain):
    pytest.importorskip("tensorrt_rtx_bindings")
    int8 = ("export.tensorrt.precision=int8", "export.quantization=entropy", "data.holdout=0")
    done = chain.passes("export", *int8)
    manifest = chain.read(MANIFEST)
    assert (manifest["quantization"], manifest["measured_file"]) == ("entropy", "subnet.onnx")
    files = manifest["files"]
    assert files["subnet.int8.engine"]["compute_capabilities"] == ["SM86", "SM89"]
    assert files["subnet.int8-tensorrt.onnx"]["parity"]["min_cosine"] >= 0.98
    assert "no labeled images" in files["subnet.int8-tensorrt.onnx"]["knn_note"]
    assert "subnet.int8.engine: tensorrt-rtx" in done.stdout
