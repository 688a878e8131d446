"""The kit of a winner: as good as the project itself, without it."""

import hashlib
import importlib.util
import json
import runpy
import subprocess
import sys
import venv
import zipfile
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from devices.transports.ssh import SshTransport
from edgesearch.data.decode import decode_image
from edgesearch.data.preprocess import Preprocess
from edgesearch.export import kit_program

WITHOUT_PROJECT = (
    "import runpy, sys\n"
    "sys.modules.update({name: None for name in "
    "('torch', 'torchvision', 'edgesearch', 'profilers', 'onnx', 'yaml')})\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Real files of many kinds, by name; the digits of scikit-learn enlarged are in them."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 256, (6, 9, 3)).astype(np.uint8))
    colour = smooth.resize((90, 60), Image.Resampling.BICUBIC)
    colour.save(folder / "colour.jpg")
    colour.save(folder / "colour.png")
    colour.convert("L").save(folder / "grey.png")
    deep = np.asarray(colour.convert("L")).astype(np.uint16) * 257 + 11
    Image.fromarray(deep).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    colour.save(folder / "turned.jpg", exif=exif)
    alpha = Image.fromarray(np.linspace(0, 255, 90 * 60).reshape(60, 90).astype(np.uint8))
    transparent = colour.copy()
    transparent.putalpha(alpha)
    transparent.save(folder / "transparent.png")
    colour.convert("P").save(folder / "palette.png", transparency=3)
    colour.resize((90, 5)).save(folder / "strip.png")
    colour.resize((16, 16)).save(folder / "exact.png")
    return sorted(folder.iterdir())


def expected_pixels(path, rule):
    preprocess = Preprocess(**rule)
    pixels = preprocess(decode_image(path, rule["channels"]))
    return pixels, preprocess.normalise(pixels[None])[0].numpy()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("resolution", "ratio"), [(16, 1.0), (32, 1.15), (100, 1.1)])
def test_prepares_images_as_for_training(images, channels, interpolation, resolution, ratio):
    assert len(images) == 9
    rule = {
        "resolution": resolution,
        "channels": channels,
        "mean": [0.4, 0.5, 0.6][:channels],
        "std": [0.2, 0.25, 0.3][:channels],
        "resize_ratio": ratio,
        "interpolation": interpolation,
    }
    for path in images:
        pixels, normalised = expected_pixels(path, rule)
        cropped = kit_program.resize_and_crop(kit_program.decode(path, channels), rule)
        steps = np.abs(cropped.transpose(2, 0, 1).astype(int) - pixels.numpy().astype(int))
        # Sums are added up in another order: where they end halfway between two values, the
        # rounding may differ by one of 255.
        assert steps.max() <= 1, path.name
        assert (steps > 0).mean() < 1e-2, path.name
        found = kit_program.prepare(path, rule)
        assert found.dtype == np.float32
        assert np.abs(found - normalised).max() <= 1.01 / 255 / min(rule["std"])
        if steps.max() == 0:
            np.testing.assert_array_equal(found, normalised)


@pytest.fixture
def kit(finished, tmp_path, monkeypatch, capsys):
    """The unpacked kit of a winner, and what runs its program."""
    folder = tmp_path / "kit"
    engine = finished[0].output_dir / "engines/w0"
    with zipfile.ZipFile(engine / "kit.zip") as archive:
        archive.extractall(folder)

    def run(*arguments):
        """Without the project, in a process of its own."""
        command = [sys.executable, "-I", "-c", WITHOUT_PROJECT, folder / "run.py", *arguments]
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path
        )

    def refuses(*arguments, says):
        monkeypatch.setattr(sys, "argv", list(map(str, ["run.py", *arguments])))
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(folder / "run.py"), run_name="__main__")
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, "")
        assert err.startswith("error: required: ")
        for text in says:
            assert text in err

    def change_manifest(change):
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return SimpleNamespace(
        folder=folder, engine=engine, run=run, refuses=refuses, change_manifest=change_manifest
    )


def reference_outputs(engine, images):
    """What the project's own preprocessing and the runtime give."""
    rule = json.loads((engine / "manifest.json").read_text())["preprocess"]
    session = onnxruntime.InferenceSession(engine / "subnet.onnx")
    pixels = [expected_pixels(path, rule)[1] for path in images]
    return [session.run(None, {"images": image[None]})[0][0] for image in pixels]


def check_outputs(saved, engine, images):
    arrays = np.load(saved)
    expected = reference_outputs(engine, images)
    assert len(arrays.files) == len(expected)
    for number, reference in enumerate(expected):
        found = arrays[f"features_{number}"]
        cosine = found @ reference / np.linalg.norm(found) / np.linalg.norm(reference)
        assert cosine > 0.99999
        assert np.abs(found - reference).max() <= 1e-3 * np.abs(reference).max()


def test_holds_what_the_device_needs_and_no_more(kit):
    names = {path.name for path in kit.folder.iterdir()}
    assert names == {"run.py", "devices", "manifest.json", "labels.txt", "subnet.onnx"}
    manifest = json.loads((kit.folder / "manifest.json").read_text())
    whole = json.loads((kit.engine / "manifest.json").read_text())
    assert set(whole["files"]) - set(manifest["files"]) == {"kit.zip"}
    assert (kit.folder / "labels.txt").read_text().split() == [str(n) for n in range(10)]


def test_gives_what_the_project_gives(kit, images, tmp_path):
    done = kit.run(*images, "--save", tmp_path / "out.npz", "--runs", 3)
    assert done.returncode == 0, done.stderr
    check_outputs(tmp_path / "out.npz", kit.engine, images)
    assert f"{images[0]}\n  features: shape [" in done.stdout
    assert "latency: median " in done.stdout
    assert "(3 runs, batch 1, onnxruntime)" in done.stdout


def test_classes_come_with_their_names(kit, images, capsys):
    shown = kit_program.describe({"logits": np.array([0.0, 2.0, 1.0])}, ["a", "b", "c"])
    assert list(shown["classes"]) == ["b", "c", "a"]
    expected = torch.tensor([0.0, 2.0, 1.0]).double().softmax(0)
    assert shown["classes"]["b"] == pytest.approx(float(expected[1]))
    manifest = {"input": {"shape": [1]}, "device": {"runtime": "onnxruntime"}}
    kit_program.show([{"image": "x.jpg", **shown}], [1.0, 2.0, 3.0], manifest, False)
    assert "x.jpg\n   66.5%  b\n" in capsys.readouterr().out
    result = json.loads(kit.run(images[0], "--json").stdout)
    assert result["latency"]["runs"] == 50
    assert 0 < result["latency"]["median_ms"] <= result["latency"]["p95_ms"]
    assert result["results"][0]["image"] == str(images[0])


def test_bad_input_is_one_message(kit, images, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    kit.refuses(text, says=["an image that can be read", f"found: {text}: cannot identify"])
    kit.refuses(tmp_path / "missing.jpg", says=["an image that can be read", "No such file"])
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "floats.tiff")
    kit.refuses(tmp_path / "floats.tiff", says=["an image", "floating-point numbers"])
    Image.fromarray(np.full((4, 4), -5, np.int32)).save(tmp_path / "negative.tiff")
    kit.refuses(tmp_path / "negative.tiff", says=["an image", "pixel values -5 to -5"])
    with (kit.folder / "subnet.onnx").open("ab") as file:
        file.write(b"more")
    kit.refuses(images[0], says=["subnet.onnx with the SHA-256", "Unpack the kit again"])
    (kit.folder / "manifest.json").write_text("{")
    kit.refuses(images[0], says=["a complete kit in", "JSONDecodeError"])


@pytest.mark.parametrize("least", [-1000.0, 0.0])
def test_an_engine_that_fails_as_it_runs_is_one_message(kit, images, least):
    """It looks up its least pixel: that of the image or, with 0, that of what it is timed with."""
    nodes = [
        helper.make_node("ReduceMin", ["images"], ["darkest"], keepdims=0),
        helper.make_node("Add", ["darkest", "least"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["one", "index"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 1, 16, 16])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.array(least, np.float32), "least"),
            numpy_helper.from_array(np.ones((1, 1), np.float32), "one"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    content = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    (kit.folder / "subnet.onnx").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    kit.change_manifest(lambda manifest: manifest["files"]["subnet.onnx"].update(sha256=digest))
    says = ["onnxruntime must be able to run", "indices element out of data"]
    kit.refuses(images[0], says=says)


def test_another_or_no_runtime_is_named(kit, images):
    def of_another_version(manifest):
        manifest["files"]["subnet.ort"]["runtime_version"] = "0.9"
        manifest["kit_file"] = "subnet.ort"

    (kit.folder / "subnet.ort").write_bytes((kit.engine / "subnet.ort").read_bytes())
    kit.change_manifest(of_another_version)
    found = f"found: onnxruntime {onnxruntime.__version__}"
    kit.refuses(images[0], says=["onnxruntime 0.9, the version that compiled subnet.ort", found])
    if importlib.util.find_spec("tensorrt") is None:
        tensorrt = {"runtime": "tensorrt", "precision": "fp16"}
        kit.change_manifest(lambda manifest: manifest["device"].update(tensorrt))
        kit.refuses(images[0], says=["pip install tensorrt"])


def test_runs_on_a_board(kit, images, board, tmp_path):
    transport = SshTransport("board", "kit", str(board.config))
    transport.connect()
    try:
        archive = transport.put(kit.engine / "kit.zip")
        there = transport.put(images[0])
        folder = f"{transport.folder}/kit"
        unpack = [sys.executable, "-m", "zipfile", "-e", archive, folder]
        assert transport.start(unpack).wait(60) == 0
        program = [sys.executable, f"{folder}/run.py", there, "--save", f"{folder}/out.npz"]
        out, err = transport.start([*program, "--json"]).communicate(timeout=600)
        assert json.loads(out)["results"][0]["image"] == there, err
        check_outputs(f"{folder}/out.npz", kit.engine, images[:1])
    finally:
        transport.close()


@pytest.mark.slow
def test_runs_in_a_bare_environment(kit, images, tmp_path):
    """Needs a package registry."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    packages = ["numpy", "pillow", "onnxruntime"]
    install = [python, "-m", "pip", "install", "-q", "--no-cache-dir", *packages]
    subprocess.run(list(map(str, install)), check=True)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True
    )
    names = {package["name"] for package in json.loads(listed.stdout)}
    assert set(packages) <= names
    assert not names & {"torch", "torchvision", "onnx", "edgesearch", "pyyaml", "safetensors"}
    command = [python, kit.folder / "run.py", *images, "--save", tmp_path / "out.npz"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    check_outputs(tmp_path / "out.npz", kit.engine, images)
