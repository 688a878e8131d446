"""The kit of a winner: as good as the project itself, without it."""

import hashlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
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
from edgesearch.export.kit import label_lines
from edgesearch.families.load_space import load_space
from edgesearch.formats.onnx_export import export_blocks
from edgesearch.formats.precisions import PRECISIONS

WITHOUT_PROJECT = (
    "import runpy, sys\n"
    "sys.modules.update({name: None for name in "
    "('torch', 'torchvision', 'edgesearch', 'profilers', 'onnx', 'yaml')})\n"
    "sys.meta_path[:] = [f for f in sys.meta_path if 'Editable' not in str(f)]\n"
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
        found = kit_program.prepare(kit_program.decode(path, channels), rule)
        assert found.dtype == np.float32
        assert np.abs(found - normalised).max() <= 1.01 / 255 / min(rule["std"])
        if steps.max() == 0:
            np.testing.assert_array_equal(found, normalised)


def processed(command, **options):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )


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
        return processed(command, cwd=tmp_path)

    def refuses(*arguments, says):
        monkeypatch.setattr(sys, "argv", list(map(str, ["run.py", *arguments])))
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(folder / "run.py"), run_name="__main__")
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, "")
        assert err.startswith("error: required: ")
        for text in says:
            assert text in err

    def replace_engine(nodes, weights, output):
        """Another network of the images: `nodes` from "images" to the output."""
        graph = helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 1, 16, 16])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(values, name) for name, values in weights.items()],
        )
        opsets = [helper.make_opsetid("", 18)]
        content = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
        (folder / "subnet.onnx").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()

        def change(manifest):
            manifest["files"]["subnet.onnx"]["sha256"] = digest
            manifest["output"] = output

        change_manifest(change)

    def change_manifest(change):
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return SimpleNamespace(
        folder=folder,
        engine=engine,
        run=run,
        refuses=refuses,
        replace_engine=replace_engine,
        change_manifest=change_manifest,
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
    programs = {"run.py", "program.py", "devices"}
    assert names == programs | {"manifest.json", "labels.txt", "subnet.onnx"}
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


def test_json_is_one_object(kit, images):
    result = json.loads(kit.run(*images[:2], "--json").stdout)
    assert result["latency"]["runs"] == 50
    assert 0 < result["latency"]["median_ms"] <= result["latency"]["p95_ms"]
    assert [about["image"] for about in result["results"]] == list(map(str, images[:2]))


CLASSES = ["cat\nfish", "Zaunkönig [/b]", "\udcff"]
SCORES = np.array([[0.0, 2.0, 1.0]], np.float32)


@pytest.fixture
def classifier(kit):
    """A kit that finds the second of three classes in each image."""
    nodes = [
        helper.make_node("ReduceMin", ["images"], ["darkest"], keepdims=0),
        helper.make_node("Mul", ["darkest", "zero"], ["nothing"]),
        helper.make_node("Add", ["scores", "nothing"], ["logits"]),
    ]
    kit.replace_engine(nodes, {"zero": np.array(0, np.float32), "scores": SCORES}, "logits")
    kit.change_manifest(lambda manifest: manifest.update(classes=CLASSES))
    (kit.folder / "labels.txt").write_text(label_lines(CLASSES), "utf-8")
    return kit


def test_classes_come_with_their_names(classifier, images):
    (result,) = json.loads(classifier.run(images[0], "--json").stdout)["results"]
    shares = torch.tensor(SCORES[0]).double().softmax(0).tolist()
    assert result["classes"] == [
        {"class": n, "name": name, "probability": pytest.approx(shares[n])}
        for n, name in [(1, "Zaunkönig [/b]"), (2, "\\udcff"), (0, "cat\\nfish")]
    ]


@pytest.mark.parametrize(
    "console", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]
)
def test_a_console_of_few_characters_shows_all_classes(classifier, images, console, tmp_path):
    copied = tmp_path / "Zaunkönig.jpg"
    copied.write_bytes(images[0].read_bytes())
    command = [sys.executable, classifier.folder / "run.py", copied]
    done = processed(command, env={**os.environ, **console}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Zaunk\S+nig\.jpg\n   66\.5%  Zaunk\S+nig \[/b\]\n", done.stdout)


def test_labels_that_do_not_fit_are_refused(classifier, images):
    labels = classifier.folder / "labels.txt"
    labels.write_bytes("\ufeffKatze\r\nZaunkönig\r\nHund\r\n".encode())  # edited on Windows
    assert "66.5%  Zaunkönig\n" in classifier.run(images[0]).stdout
    labels.write_text("cat\ndog\n", "utf-8")
    classifier.refuses(images[0], says=["3 lines in", "found: 2 lines"])
    labels.write_bytes("Zaunkönig\n".encode("latin-1"))
    classifier.refuses(images[0], says=["labels.txt in UTF-8", "UnicodeDecodeError"])
    labels.unlink()
    classifier.refuses(images[0], says=["labels.txt in UTF-8", "FileNotFoundError"])


def test_bad_input_is_one_message(kit, images, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    kit.refuses(text, says=["images that can be read", f"found: {text}: no image of a kind"])
    kit.refuses(tmp_path / "missing.jpg", says=["missing.jpg: No such file"])
    kit.refuses(tmp_path, says=[f"{tmp_path}: a folder: name its files"])
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "floats.tiff")
    kit.refuses(tmp_path / "floats.tiff", says=["floating-point numbers"])
    Image.fromarray(np.full((4, 4), -5, np.int32)).save(tmp_path / "negative.tiff")
    kit.refuses(tmp_path / "negative.tiff", says=["pixel values -5 to -5"])
    kit.refuses(images[0], "--save", tmp_path / "no/out.npz", says=["a folder for", "Create it"])
    done = kit.run(images[0], "--runs", 0)
    assert (done.returncode, done.stdout) == (2, "")
    assert "a whole number from 1 on is required, not 0" in done.stderr
    with (kit.folder / "subnet.onnx").open("ab") as file:
        file.write(b"more")
    kit.refuses(images[0], says=["subnet.onnx with the SHA-256", "Unpack kit.zip again"])
    (kit.folder / "manifest.json").write_text("{")
    kit.refuses(images[0], says=["a complete kit in", "Expecting property name"])


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("manifest.json", "manifest.json"),
        ("program.py", "program.py is missing"),
        ("subnet.onnx", "subnet.onnx"),
        ("devices/spec.py", "No module named 'devices.spec'"),
        ("devices/runtimes/checks.py", "No module named 'devices.runtimes.checks'"),
    ],
)
def test_a_file_that_is_lost_from_the_kit_is_named(kit, images, lost, says):
    (kit.folder / lost).unlink()
    done = kit.run(images[0])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: required: a complete kit in {kit.folder}\n")
    assert says in done.stderr
    assert done.stderr.count("\n") == 3


def test_what_can_be_read_is_not_lost_with_what_cannot(kit, images, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    mixed = [images[0], tmp_path / "text.jpg", tmp_path / "missing.jpg", images[1]]
    done = kit.run(*mixed, "--save", tmp_path / "out")
    assert done.returncode == 2
    assert f"found: 2 of 4 cannot be read; the first: {tmp_path / 'text.jpg'}: " in done.stderr
    assert [str(path) in done.stdout for path in mixed] == [True, False, False, True]
    assert np.load(tmp_path / "out").files == ["features_0", "features_3"]


def test_what_is_too_old_or_missing_is_named(kit, images):
    for package in ("python", "numpy", "Pillow", "onnxruntime"):
        kit.change_manifest(
            lambda manifest, name=package: manifest["least_versions"].update({name: "99.0"})
        )
        kit.refuses(images[0], says=[f"{package.replace('python', 'Python')} 99.0 or newer"])
        kit.change_manifest(
            lambda manifest, name=package: manifest["least_versions"].update({name: "1.0"})
        )
    done = processed([sys.executable, "-I", "-S", kit.folder / "run.py", images[0]])
    assert done.returncode == 2
    assert "numpy 1.0 or newer" in done.stderr
    assert "-m pip install 'numpy>=1.0'\n" in done.stderr.replace('"', "'")


def test_the_kit_has_nothing_that_its_least_python_lacks(kit):
    """run.py runs on older ones, to say so."""
    least = json.loads((kit.folder / "manifest.json").read_text())["least_versions"]["python"]
    for options in ([f"-t={least}-", kit.folder], ["-t=3.3-", kit.folder / "run.py"]):
        command = [sys.executable, "-c", "from vermin import main; main()", "--violations"]
        done = processed([*command, "--no-eval-annotations", *options])
        assert done.returncode == 0, done.stdout + done.stderr


def test_runs_from_anywhere_and_into_a_closed_pipe(kit, images, tmp_path):
    moved = tmp_path / "Zaunkönig und 'Co'"
    kit.folder.rename(moved)
    shell = f'{shlex.quote(sys.executable)} "$0/run.py" "$@" '
    picture = [os.path.relpath(image, "/") for image in images]
    for end, code in [("| head -1", 0), ("> /dev/full", 2), (">&-", 0), ("| cat", 0)]:
        done = processed(["sh", "-c", f"set -e; {shell} {end}", moved, *picture], cwd="/")
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == (code == 2)


@pytest.mark.parametrize("least", [-1000.0, 0.0])
def test_an_engine_that_fails_as_it_runs_is_one_message(kit, images, least):
    """It looks up its least pixel: that of the image or, with 0, that of what it is timed with."""
    nodes = [
        helper.make_node("ReduceMin", ["images"], ["darkest"], keepdims=0),
        helper.make_node("Add", ["darkest", "least"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["one", "index"], ["features"]),
    ]
    weights = {"least": np.array(least, np.float32), "one": np.ones((1, 1), np.float32)}
    kit.replace_engine(nodes, weights, "features")
    says = ["onnxruntime must be able to run", "indices element out of data"]
    kit.refuses(images[0], "--json", says=says)


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


def install(python, folder, *packages):
    """A virtual environment with packages, and a list of what it has."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-q", "--no-cache-dir", *packages], check=True)
    listed = subprocess.run([*pip, "list", "--format=json"], capture_output=True, check=True)
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert not names & {"torch", "torchvision", "onnx", "edgesearch", "pyyaml", "safetensors"}
    return folder / "bin/python"


def oldest_python(least):
    """A Python that has wheels of 2022; None if there is none here."""
    folders = sorted(Path.home().glob(".pyenv/versions/*/bin"))
    for minor in range(int(least.split(".")[1]), 11):
        name = f"python3.{minor}"
        for folder in (None, *folders):
            found = shutil.which(name, path=folder and str(folder))
            # A shim of pyenv may stand for a version that is not chosen.
            if found and processed([found, "-c", "import venv, ensurepip"]).returncode == 0:
                return found
    return None


@pytest.mark.slow
@pytest.mark.parametrize("age", ["oldest", "newest"])
def test_runs_in_a_bare_environment(age, kit, images, tmp_path):
    """Needs a package registry, which may have only some of the wheels for a Python."""
    least = json.loads((kit.folder / "manifest.json").read_text())["least_versions"]
    names = [name for name in least if name != "python"]
    wanted, python = names, sys.executable
    if age == "oldest":
        wanted = [f"{name}=={least[name]}.*" for name in names]
        python = oldest_python(least["python"])
        if python is None:
            pytest.skip(f"no Python {least['python']} to 3.10 here, for which old wheels were made")
    python = install(python, tmp_path / "venv", *wanted)
    command = [python, kit.folder / "run.py", *images, "--save", tmp_path / "out.npz"]
    done = processed(command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_outputs(tmp_path / "out.npz", kit.engine, images)
    for path in (*kit.engine.glob("*.onnx"), *blocks_and_quantized(kit, tmp_path)):
        loads_there = (
            "import sys, numpy, onnxruntime\n"
            "session = onnxruntime.InferenceSession(sys.argv[1], "
            "providers=['CPUExecutionProvider'])\n"
            "(given,) = session.get_inputs()\n"
            "type = {'tensor(float)': 'f4', 'tensor(uint8)': 'u1', 'tensor(int8)': 'i1'}\n"
            "ones = numpy.ones(given.shape, type.get(given.type, 'f2'))\n"
            "numpy.save(sys.argv[2], session.run(None, {given.name: ones})[0])\n"
        )
        outputs = []
        for each in (python, sys.executable):
            done = processed([each, "-c", loads_there, path, tmp_path / "outputs.npy"])
            assert done.returncode == 0, (path.name, done.stderr)
            outputs.append(np.load(tmp_path / "outputs.npy").astype(np.float64))
        step = max(1.0 * ("s8" in path.name), 2e-2 * np.abs(outputs[1]).max())
        assert np.abs(outputs[0] - outputs[1]).max() <= step, path.name


def blocks_and_quantized(kit, folder):
    """Further files of every precision: the blocks of a space, and quantized networks."""
    space = load_space("resnet_tiny", in_channels=1)
    blocks = {block.key: block for block in space.blocks(space.largest)}
    paths = {key: folder / f"block{number}.onnx" for number, key in enumerate(blocks)}
    export_blocks(space, space.largest.resolution, paths, batch=1)
    for precision in PRECISIONS.values():
        for number_format in precision.number_formats:
            if precision.convert is None:
                continue
            for source in (kit.engine / "subnet.onnx", *list(paths.values())[:3]):
                path = folder / f"{source.stem}.{number_format}.onnx"
                whole = source.parent == kit.engine
                precision.write(source, path, number_format, is_first=whole, is_last=whole)
                yield path
    yield from paths.values()
