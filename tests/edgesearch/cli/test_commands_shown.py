"""Every command that README.md and the heads of the configurations show, run as it stands there.

The folder in which they run has the images, files and packages that they speak of, and a finished
run in place of the quick start's. Where `run`, `profile` and `pretrain` would begin to measure or
to train, they are stopped: by then everything that can be refused beforehand has been checked.
"""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
import typer
import yaml
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

from edgesearch.cli.main import app
from edgesearch.config import Config, load_config
from edgesearch.config.faults import kinds_at
from edgesearch.config.starting_point import Wishes
from edgesearch.errors import Interrupted, UserError
from edgesearch.stages.init import init
from edgesearch.supernet.weight_packages import PACKAGES

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text("utf-8")
QUICK_START = "configs/quickstart.yaml"
FILLED = {"PATH": "images", "NAME": "local-cpu", "CONFIG": QUICK_START}
IMAGES = 660
"""After a fifth is held out, still a batch of the largest recipe (512)."""


def shown_lines() -> Iterator[str]:
    """Lines of code blocks and code within sentences of README, and of configuration heads."""
    for block in re.findall(r"^```\w*\n(.*?)^```", README, re.M | re.S):
        for line in block.splitlines():
            yield line.removeprefix("$ ")
    yield from re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S))
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        head = path.read_text("utf-8").partition("\n\n")[0]
        yield from re.findall(r"^#     (\S.*)$", head, re.M)


def commands() -> Iterator[tuple[str, ...]]:
    for line in shown_lines():
        for part in re.split(r" && | \|\| ", " ".join(line.split())):
            words = shlex.split(part, comments=True) if "edgesearch " in part else []
            if words[:1] == ["torchrun"]:
                assert words[words.index("--no-python") + 1] == "edgesearch"
                words = words[words.index("--no-python") + 1 :]
            if words[:1] == ["edgesearch"] and words[1:2] != ["--help"]:
                yield tuple(words[1:])


COMMANDS = sorted(set(commands()))


def test_commands_are_found():
    assert len(COMMANDS) > 20
    assert {words[0] for words in COMMANDS} >= {
        *("run", "profile", "validate", "pretrain", "search", "export", "evaluate", "bench"),
        *("table", "devices"),
    }


@pytest.fixture(scope="module")
def workshop(finished, small_config, lite0_state, tmp_path_factory):
    """The folder: `images`, `configs`, the finished run, a teacher, a package of weights."""
    folder = tmp_path_factory.mktemp("workshop")
    shutil.copytree(ROOT / "configs", folder / "configs")
    values = {**small_config, "output_dir": "runs/quickstart"}
    (folder / QUICK_START).write_text(yaml.safe_dump(values), "utf-8")
    shutil.copytree(finished[0].output_dir, folder / "runs/quickstart")
    noise = np.random.default_rng(0)
    for number in range(IMAGES):
        path = folder / f"images/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 64, (32, 32, 3), np.uint8)
        pixels[..., number % 2] += 128
        Image.fromarray(pixels).save(path)
    package = PACKAGES["efficientnet-lite0"]
    weights = folder / package.module / package.file.replace("*", "lite0")
    weights.parent.mkdir(parents=True)
    (folder / package.module / "__init__.py").touch()
    torch.save(lite0_state, weights)
    onnx.save(mean_colour(), folder / "teacher.onnx")
    for name in ("resnet34", "resnet50"):
        network = getattr(torchvision.models, name)()
        torch.save(network.state_dict(), folder / f"{name}.pth")
    return folder


def mean_colour():
    """A teacher for uint8 images (N, 3, H, W)."""
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 3, "h", "w"])
    found = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3, 1, 1])
    cast = helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT)
    mean = helper.make_node("GlobalAveragePool", ["x"], ["features"])
    graph = helper.make_graph([cast, mean], "teacher", [given], [found])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def begins(*arguments):
    raise Interrupted("the work begins")


def refuses(*arguments, **options):
    raise UserError("a quiet machine", "that of the tests", "Wait.")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_runs(words, workshop, finished, monkeypatch):
    if len(words) == 1 and words[0] not in ("devices", "spaces", "configs"):
        assert words[0] in typer.main.get_command(app).commands  # named in a sentence
        return
    monkeypatch.chdir(workshop)
    monkeypatch.syspath_prepend(workshop)  # the package
    filled = FILLED | {
        "FILE": next(
            workshop.glob("*/models/*.pth" if words[0] == "weights" else "runs/*/latency/*.jsonl")
        )
    }
    name, *arguments = [
        re.sub(r"\b[A-Z]+\b", lambda m: str(filled.get(m[0], m[0])), word) for word in words
    ]
    # The finished run has a smaller space than the quick start.
    smallest = str(finished[0].space.smallest)
    arguments = [re.sub(r"^stem\d.*", smallest, word) for word in arguments]
    if name == "init":
        (workshop / "edgesearch.yaml").unlink(missing_ok=True)
        monkeypatch.setattr("edgesearch.stages.init.glance_at", refuses)
    elif "edgesearch.yaml" in arguments and not (workshop / "edgesearch.yaml").exists():
        init("images", device="local-cpu", wishes=Wishes(share=0.5))
    has_work = name in ("run", "plan", "profile", "pretrain") and arguments != [QUICK_START]
    if has_work:
        monkeypatch.setattr("edgesearch.stages.profile.open_meter", begins)
        monkeypatch.setattr("edgesearch.latency.glance.open_meter", begins)
        monkeypatch.setattr("edgesearch.pretrain.trainer.Trainer.fit", begins)
        # The machine of imagenet_resnet50to101.yaml has more memory than that of the tests.
        monkeypatch.setattr("edgesearch.run.room.machine_memory", lambda: 1 << 40)
    done = CliRunner().invoke(app, [name, *arguments])
    if any(word in ("configs/detect.yaml", "configs/segment.yaml") for word in words):
        assert done.exit_code == 2 and "annotations (" in done.stderr  # these images have none
    elif has_work:
        assert (done.exit_code, "the work begins" in done.stderr) == (130, True), done.stderr
    elif name == "validate":  # README shows it after `profile`, which is stopped here
        assert done.exit_code == 2
        assert "edgesearch profile" in done.stderr
    else:
        assert done.exit_code == 0, done.stderr


OVERRIDES = sorted({text for text in re.findall(r"`([a-z_]+\.[a-z_.]+=[^`]+)`", README)})


@pytest.mark.parametrize("text", OVERRIDES)
def test_each_override_in_a_sentence_is_understood(text):
    first, *more = [
        re.sub(r"\b[A-Z]{2,}\b(?=$| |/)", lambda m: FILLED.get(m[0], m[0]), word)
        for word in re.split(r" (?=[a-z_]+\.[a-z_.]+=)", text.replace("\n", " "))
    ]
    base = ["pretrain.init=efficientnet-lite0"] if "epochs=0" in text else []
    base += [] if "data.source" in text else ["data.source=folder", "data.root=images"]
    key, _, value = first.partition("=")
    choices = value.split("|") if kinds_at(Config, key.split(".")) else [value]
    for choice in choices:
        load_config("cifar10", [*base, f"{key}={choice.strip(chr(39))}", *more])
    assert choices
