"""What several rooms look at: one small run of the whole chain, one subnet, a second family."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from onnx import TensorProto, helper
from PIL import Image
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

import edgesearch
from devices import load_device, take_fingerprint
from edgesearch.cli.main import app
from edgesearch.config import Config
from edgesearch.export.engines import ONNX_FILE
from edgesearch.families import FAMILIES
from edgesearch.families.mobile.members import MEMBERS
from edgesearch.families.resnet.network import ResNet
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.formats.onnx_export import assemble_network, export_blocks, export_network
from edgesearch.latency.table import about_network
from edgesearch.latency.workloads import WorkloadFiles
from edgesearch.supernet.calibrate import recalibrate

# One thread: the tests are small, and others may be at work on the same cores.
torch.set_num_threads(1)
threadpool_limits(1, "blas")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of processes that tests start

CONFIG = {
    "seed": 0,
    "space": {
        "name": "two stages",
        "family": "resnet",
        "block": "basic",
        "stem": "small",
        "in_channels": 1,
        "stem_widths": [4, 8],
        "stage_widths": [[4, 8], [8, 16]],
        "stage_depths": [[1, 2], [1, 2]],
        "resolutions": [16],
    },
    "data": {"source": "digits", "licence": "BSD-3-Clause"},
    # So wide an interval that as many rounds are made on a busy machine as on an idle one.
    "profile": {"rounds": 4, "least_ms": 0, "networks": 6, "interval": 1.0},
    "pretrain": {
        "epochs": 2,
        "batch_size": 64,
        "queue_size": 128,
        "projector_hidden_dim": 16,
        "projector_dim": 8,
        "projector_bn": True,
        "threads": 1,
        # The same in each run, whatever is faster meanwhile.
        "precision": "fp32",
        "memory_format": "channels_last",
        "knn_k": 5,
        "augmentation": {"batched": True, "flip_probability": 0, "blur_probability": 0},
    },
    "search": {
        "evaluations": 12,
        "population": 3,
        "images": 64,
        "calibration_images": 64,
        "batch_size": 64,
        "reserves": 4,
        # Far above what any of these takes, so that a busy machine changes nothing.
        "budgets": {"latency_ms": 1000, "macs": 700000},
    },
    "evaluation": {"knn_k": 5, "train_images": 400},
    "export": {"tensorrt": {"compute_capabilities": ["SM86", "SM89"]}},
}


@dataclass(frozen=True)
class Chain:
    """The small configuration and an output folder, by the command line or in Python."""

    config: Path
    output_dir: Path

    def api(self, **sections):
        """The run in Python; a section's values replace those of the small configuration."""
        values = {**CONFIG, "output_dir": str(self.output_dir)}
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section}
        return edgesearch.Run(Config.model_validate(values))

    def command(self, stage, *overrides):
        where = (str(self.config), f"output_dir={self.output_dir}")
        return [sys.executable, "-m", "edgesearch", stage, *where, *overrides]

    def call(self, stage, *overrides):
        """A command in this process, which has imported everything."""
        command = self.command(stage, *overrides)
        done = CliRunner().invoke(app, command[3:])
        return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)

    def passes(self, stage, *overrides):
        """What a command prints that has to succeed."""
        done = self.call(stage, *overrides)
        assert done.returncode == 0, done.stderr
        return done

    def json(self, stage, *overrides):
        """The result of a command."""
        return json.loads(self.passes(stage, *overrides, "--json").stdout)

    def refuses(self, stage, *overrides, says=()):
        """The one message of a command that cannot do what it is asked for."""
        done = self.call(stage, *overrides)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("error: required:") == 1
        assert "Traceback" not in done.stderr
        for text in (says,) if isinstance(says, str) else says:
            assert text in done.stderr
        return done.stderr

    def start(self, stage, *overrides):
        """A command in a process of its own."""
        return subprocess.Popen(
            self.command(stage, *overrides),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def stopped(self, stage, number, when, *overrides):
        """Start a stage, send it a signal as soon as `when()` is true, and wait for its end."""
        process = self.start(stage, *overrides)
        wait_for(when, process)
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def copied(self, folder):
        """The same state in another folder, where a test may spoil it."""
        shutil.copytree(self.output_dir, folder / "out")
        return Chain(self.config, folder / "out")

    def read(self, name):
        """A JSON file of the run."""
        return json.loads((self.output_dir / name).read_text("utf-8"))

    def write(self, name, values):
        (self.output_dir / name).write_text(json.dumps(values), "utf-8")

    def lines(self, name):
        path = self.output_dir / name
        return path.read_text("utf-8").splitlines() if path.exists() else []

    @property
    def space(self):
        return self.api().space

    def architecture(self, values):
        """The architecture that a file describes."""
        return self.space.from_choices(values)

    @property
    def table(self):
        """The latency table's path."""
        (path,) = (self.output_dir / "latency").glob("*.jsonl")
        return path

    def change_table(self, change):
        """Replace the lines of the table by what `change` makes of their values."""
        lines = change([json.loads(line) for line in self.table.read_text("utf-8").splitlines()])
        self.table.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")

    def measure_beforehand(self, candidates, samples_ms, exports_ago=0):
        """Put 99 rounds of winners into the table, as the next export would measure them."""

        def change(lines):
            kept = [line for line in lines if line.get("kind") != "winner"]
            session = 1 + max(line.get("session", 0) for line in kept) - exports_ago
            measured = [
                {
                    "kind": "winner",
                    "key": f"winner/features/{candidate}/{session}",
                    "session": 1,
                    "round": number,
                    "samples_ms": samples_ms,
                    "about": about_network(self.space, candidate),
                }
                for candidate in candidates
                for number in range(1, 100)
            ]
            # After the first look at the reference workload they would count as rounds of a busy
            # machine whenever the last look met one.
            first = next(n for n, line in enumerate(kept) if line.get("kind") == "reference")
            return [*kept[:first], *measured, *kept[first:]]

        self.change_table(change)


def wait_for(moment, *running):
    """Wait until `moment()` is true, which has to be while some processes run."""
    deadline = time.monotonic() + 600
    while not moment():
        ended = [process for process in running if process.poll() is not None]
        assert not ended, f"it ended before the moment: {ended[0].stderr.read()}"
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.002)


@pytest.fixture(scope="session", name="wait_for")
def _wait_for():
    return wait_for


@pytest.fixture(scope="session")
def small_config():
    """The configuration of the small run, without an output folder."""
    return CONFIG


@pytest.fixture(scope="session")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "chain.yaml"
    path.write_text(yaml.safe_dump({"output_dir": "unused", **CONFIG}))
    return path


@pytest.fixture(scope="session")
def chain_in(config_file):
    """Makes a chain whose output is in a folder."""
    return lambda folder: Chain(config_file, folder / "out")


@pytest.fixture
def empty(config_file, tmp_path):
    """The small configuration with an output folder that is not there yet."""
    return Chain(config_file, tmp_path / "out")


@pytest.fixture(scope="session")
def finished(config_file, tmp_path_factory):
    """A finished run, and what it printed. Do not write into it: take `chain`."""
    chain = Chain(config_file, tmp_path_factory.mktemp("finished") / "out")
    return chain, chain.passes("run")


@pytest.fixture
def chain(finished, tmp_path):
    """A copy of the finished run."""
    return finished[0].copied(tmp_path)


@pytest.fixture
def spoilt_cache(tmp_path):
    """Fills a cache with the blocks of a space, of which some cannot run."""

    def fill(space, choose=lambda space: [space.blocks(space.largest)[0].key]):
        """The keys of the spoilt blocks (a single one as it is), and the cache.

        They are valid ONNX that onnxruntime has no kernel for.
        """
        device, cache = load_device("local-cpu"), tmp_path / "cache"
        fingerprint = take_fingerprint("onnxruntime", onnxruntime.__version__)
        with WorkloadFiles(space, device, fingerprint, tmp_path / "networks", cache) as files:
            paths = files.blocks()
        keys = choose(space)
        for key in keys:
            _spoil(paths[key])
        return (keys[0] if len(keys) == 1 else keys), cache

    return fill


@pytest.fixture(scope="session")
def spoil():
    """Changes an ONNX file so that onnxruntime knows its operators and has none for their type."""
    return _spoil


def _spoil(path):
    model = onnx.load(path)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["spoilt.in" if name == output else name for name in node.output]
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["spoilt.in"], ["spoilt.short"], to=TensorProto.BFLOAT16),
            helper.make_node("Relu", ["spoilt.short"], ["spoilt.relu"]),
            helper.make_node("Cast", ["spoilt.relu"], [output], to=TensorProto.FLOAT),
        ]
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@pytest.fixture(scope="session")
def tiny_module():
    """The module `families/tiny.py`."""
    path = Path(__file__).parent / "families" / "tiny.py"
    spec = importlib.util.spec_from_file_location("tiny_family", path)
    module = sys.modules["tiny_family"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiny_family(tiny_module, monkeypatch):
    """Makes `family: tiny` known."""
    monkeypatch.setitem(FAMILIES, "tiny", tiny_module.TinySpace)


@pytest.fixture(scope="session")
def space():
    widths, depths = ((4, 8), (8, 16)), ((1, 2), (1, 2))
    return ResNetSpace("toy", "basic", "small", (4, 8), widths, depths, (16,), in_channels=1)


@pytest.fixture(scope="session")
def images():
    """(32, 1, 16, 16), normalised."""
    return torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def subnet(space, images):
    """The largest subnet, with weights and statistics that leave nothing without effect."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNet(space.blocks(space.largest))
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    recalibrate(network, images, 16)
    return network.eval()


@pytest.fixture(scope="session")
def expected(subnet, images):
    """(32, 16), what the subnet gives for the images."""
    with torch.no_grad():
        return subnet(images).numpy()


@pytest.fixture(scope="session")
def exported(space, subnet, tmp_path_factory):
    """The folder with the subnet's ONNX file."""
    folder = tmp_path_factory.mktemp("winner")
    export_network(
        subnet,
        folder / ONNX_FILE,
        input_shape=(1, 1, 16, 16),
        output_names=["features"],
        metadata={"architecture": json.dumps(dict(space.largest)), "space": space.name},
    )
    return folder


@pytest.fixture(scope="session")
def blocks(space, tmp_path_factory):
    """Files of all blocks of the space, what was told meanwhile, and the largest network's file."""
    folder = tmp_path_factory.mktemp("blocks")
    paths = {
        block.key: folder / f"{block.key.replace('/', '_')}.onnx"
        for block in space.distinct_blocks(16)
    }
    told = []
    export_blocks(space, 16, paths, batch=2, on_progress=lambda *counts: told.append(counts))
    network = folder / "network.onnx"
    assemble_network(space.blocks(space.largest), paths, network)
    return SimpleNamespace(paths=paths, told=told, network=network)


def _lite0_names(network):
    """The names of EfficientNet-Lite's modules in the order of ours, with our tensors."""
    ours, names = network.state_dict(), []
    names += ["_conv_stem", "_bn0"]
    for number, (name, _) in enumerate(_blocks_of(network)):
        if f"{name}.expand.conv.weight" in ours:
            names += [f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0"]
        names += [f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1"]
        names += [f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2"]
    names += ["_conv_head", "_bn1"]
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in ours))
    theirs = dict(zip(modules, names, strict=True))
    return {f"{theirs[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in ours.items()}


def _blocks_of(network):
    return [
        (f"{stage}.{number}", block)
        for stage in network.stage_channels
        for number, block in enumerate(network.get_submodule(stage).children())
    ]


@pytest.fixture(scope="session")
def lite0():
    """A network of the form of EfficientNet-Lite0 with statistics as after training."""
    space = MEMBERS["efficientnet_lite0"]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = space.make_network(space.blocks(space.largest))
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.uniform_(module.bias, -0.2, 0.2)
                torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="session")
def lite0_state(lite0):
    """What its file holds; `_fc` is the classifier."""
    return {**_lite0_names(lite0), "_fc.weight": torch.zeros(10, 1280)}


def _labelled(folder, task):
    """32 images of 32 pixels with squares of two colours, labelled for a task."""
    noise = np.random.default_rng(0)
    for number in range(32):
        split, kind, left = ("val", "train")[number % 4 > 0], number % 2, 4 + number % 8
        pixels = noise.integers(0, 64, (32, 32, 3), dtype=np.uint8)
        square = slice(left, left + 16)
        pixels[square, square, kind] += 150
        place = "ab"[kind] if task == "classification" else f"images/{split}"
        image = folder / place / f"{number}.png"
        label = folder / f"labels/{split}/{number}"
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(image)
        if task == "detection":
            centre = (left + 8) / 32
            label.with_suffix(".txt").write_text(f"{kind} {centre} {centre} 0.5 0.5\n")
        if task == "segmentation":
            classes = np.zeros((32, 32), np.uint8)
            classes[square, square] = 1 + kind
            Image.fromarray(classes).save(label.with_suffix(".png"))
    if task == "classification":
        shutil.rmtree(folder / "labels")
    names = ["ground"] * (task == "segmentation") + ["red", "green"]
    (folder / "classes.txt").write_text("\n".join(names))
    return folder


@pytest.fixture(scope="session")
def labelled():
    """Makes a folder of images with labels for a task."""
    return _labelled
