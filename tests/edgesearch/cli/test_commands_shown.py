"""Every command that README.md, docs/ and the heads of the configurations show, as it stands there.

The folder in which they run has the images, files and packages that they speak of, and a finished
run in place of the quick start's. Where `run`, `plan`, `profile` and `pretrain` would begin to
measure or to train, they are stopped: by then everything that can be refused beforehand has been
checked. A command that is shown in several places, by name or by file, runs once.
"""

import re
import shlex
import shutil
import subprocess
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
from edgesearch.config.keys import keys
from edgesearch.config.starting_point import Wishes
from edgesearch.errors import Interrupted, UserError
from edgesearch.stages.init import init
from edgesearch.supernet.weight_packages import PACKAGES

ROOT = Path(__file__).parents[3]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
CONFIGS = {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml"))}
QUICK_START = "configs/quickstart.yaml"
FILLED = {
    "PATH": "images",
    "IMAGES": "images",
    "NAME": "local-cpu",
    "CONFIG": QUICK_START,
    "PREFIX": "search",
    "COMMAND": "run",
}
ANNOTATED = {
    **{"configs/detect.yaml": "objects", "configs/segment.yaml": "scenes"},
    **{"detection": "objects", "segmentation": "scenes"},
}
"""Folders of images whose labels are no class folders, by a word of the command."""
IMAGES = 660
"""After a fifth is held out, still a batch of the largest recipe (512)."""
ANNOTATED_IMAGES = 90
PROGRAMS = ("bash", "cmake", "edgesearch", "mkdocs", "pip", "pytest", "python", "run.py", "sh")
PROGRAMS += ("ssh", "sudo", "tensorboard", "torchrun")
"""Programs whose name begins a command."""
NOT_RUN = {
    r"pip install .*": "it is how these tests were installed (.ci/run)",
    r"pytest": "this is it",
    r"pytest -m gpu": "needs an NVIDIA GPU",
    r"mkdocs serve": "`mkdocs build --strict` runs in .ci/run",
    r"python run\.py image\.jpg( --json| --draw out\.png)?": "export/test_kit.py",
    r"run\.py IMAGE --draw out\.png": "export/test_kit_tasks.py",
    r"run\.py": "a file's name",
    r"python benchmarks/gpu\.py FOLDER": "needs an NVIDIA GPU",
    r"ssh (-o BatchMode=yes )?(-F FILE )?NAME( true)?": "NAME is a board of the reader's",
    r"tensorboard --logdir RUN/supernet/tensorboard": "a program of others, which does not end",
    r"(while|mkdir|ln|done) .*": "test_links_to_a_part_of_the_images",
}
"""Commands that are shown and not run here, with the reason."""


def fences(text: str) -> Iterator[tuple[str, str]]:
    """Language and text of each code block."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)


def code_in_sentences(text: str) -> Iterator[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for code in re.findall(r"`([^`]+)`", prose):
        yield " ".join(code.split())


def shown_commands() -> Iterator[str]:
    """Commands of code blocks and in sentences of the pages, and of configuration heads."""
    for text in PAGES.values():
        for language, block in fences(text):
            lines = block.splitlines()
            if language == "bash":
                yield from lines
            elif not language:
                yield from (line.removeprefix("$ ") for line in lines if _is_command(line))
        yield from filter(_is_command, code_in_sentences(text))
    for path in CONFIGS.values():
        head = path.read_text("utf-8").partition("\n\n")[0]
        yield from re.findall(r"^#     (\S.*)$", head, re.M)


def _is_command(text: str) -> bool:
    first, _, _ = text.removeprefix("$ ").partition(" ")
    return text.startswith("$ ") or first in PROGRAMS


def single_commands() -> Iterator[tuple[str, ...]]:
    for line in shown_commands():
        for part in re.split(r" && | \|\| ", " ".join(line.split())):
            if words := shlex.split(part, comments=True):
                yield tuple(words)


def unfilled() -> Iterator[tuple[str, ...]]:
    """Those of edgesearch, without its name."""
    for words in single_commands():
        if words[0] == "torchrun":
            assert words[words.index("--no-python") + 1] == "edgesearch"
            words = words[words.index("--no-python") + 1 :]
        if words[0] == "edgesearch" and len(words) > 1:
            yield words[1:]


def filled(words: tuple[str, ...]) -> tuple[str, ...]:
    """The command with placeholders filled; a configuration that comes along, by its file."""
    name, *arguments = words
    if arguments and arguments[0] in CONFIGS:
        arguments[0] = f"configs/{arguments[0]}.yaml"
    named = (ANNOTATED[each] for each in arguments if each in ANNOTATED)
    values = FILLED | {"PATH": next(named, "images")}
    placeholder = re.compile(r"\b[A-Z]+\b")
    return (
        values.get(name, name),
        *(placeholder.sub(lambda m: values.get(m[0], m[0]), each) for each in arguments),
    )


COMMANDS = sorted({filled(words) for words in unfilled()})


def test_commands_are_found():
    assert len(COMMANDS) > 40
    assert {words[0] for words in COMMANDS} >= {
        *("run", "profile", "validate", "pretrain", "search", "export", "evaluate", "bench"),
        *("table", "devices", "init", "plan", "report", "weights", "keys", "clean", "rank"),
    }


def test_every_other_command_has_a_reason_not_to_be_run():
    others = {
        " ".join(words) for words in single_commands() if words[0] not in ("edgesearch", "torchrun")
    }
    without = [each for each in others if not any(re.fullmatch(k, each) for k in NOT_RUN)]
    assert without == []
    shown = {" ".join(words) for words in single_commands()}
    unused = [k for k in NOT_RUN if not any(re.fullmatch(k, each) for each in shown)]
    assert unused == []


def test_links_of_readme_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)", PAGES["README.md"])
    assert len(targets) > 20
    assert [each for each in targets if not (ROOT / each).is_file()] == []


def test_names_of_configurations_are_those_of_their_files():
    named = {words[1] for words in unfilled() if words[1:] and words[1] in CONFIGS}
    assert named
    for name in named:
        assert load_config(name) == load_config(str(CONFIGS[name]))


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
    objects_in(folder / "objects")
    scenes_in(folder / "scenes")
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


def objects_in(folder):
    """Images with a box each, as in Pascal VOC."""
    box = "<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>20</xmax><ymax>20</ymax></bndbox>"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for number in range(ANNOTATED_IMAGES):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"JPEGImages/{number}.jpg")
        (folder / f"Annotations/{number}.xml").write_text(
            f"<annotation><filename>{number}.jpg</filename><size><width>32</width><height>32"
            f"</height><depth>3</depth></size><object><name>a</name>{box}</object></annotation>"
        )
    names = [str(number) for number in range(ANNOTATED_IMAGES)]
    (folder / "ImageSets/Main/train.txt").write_text("\n".join(names[10:]))
    (folder / "ImageSets/Main/test.txt").write_text("\n".join(names[:10]))


def scenes_in(folder):
    """Images with a map of two classes each."""
    for number in range(ANNOTATED_IMAGES):
        split = "test" if number < 10 else "train"
        image = folder / f"images/{split}/{number}.png"
        labels = folder / f"labels/{split}/{number}.png"
        for path in (image, labels):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (number, 0, 0)).save(image)
        half = np.zeros((32, 32), np.uint8)
        half[:, 16:] = 1
        Image.fromarray(half).save(labels)
    (folder / "classes.json").write_text('["ground", "thing"]')


def mean_colour():
    """A teacher for uint8 images (N, 3, H, W)."""
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 3, "h", "w"])
    found = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3, 1, 1])
    cast = helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT)
    mean = helper.make_node("GlobalAveragePool", ["x"], ["features"])
    graph = helper.make_graph([cast, mean], "teacher", [given], [found])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def begins(*arguments, **options):
    raise Interrupted("the work begins")


def refuses(*arguments, **options):
    raise UserError("a quiet machine", "that of the tests", "Wait.")


BEGINNINGS = (
    "edgesearch.stages.plan.Planner.plan",
    "edgesearch.stages.run.tell_plan",
    "edgesearch.stages.profile.open_meter",
    "edgesearch.pretrain.trainer.Trainer.fit",
)
"""Where commands have checked all that they check, and begin to measure or to train."""

AFTER = {"validate": "profile", "compare": "search"}
"""Commands that need the results of another one, which they name."""


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_runs(words, workshop, finished, monkeypatch):
    name, *arguments = words
    if not arguments and name not in ("devices", "spaces", "configs"):
        assert name in typer.main.get_command(app).commands  # named in a sentence
        return
    monkeypatch.chdir(workshop)
    monkeypatch.syspath_prepend(workshop)  # the package
    shutil.rmtree("runs")
    shutil.copytree(finished[0].output_dir, "runs/quickstart")
    file = next(Path().glob("*/models/*.pth" if name == "weights" else "runs/*/latency/*.jsonl"))
    arguments = [str(file) if word == "FILE" else word for word in arguments]
    arguments = [re.sub(r"\blocal-cpu-[0-9a-f]{8}\b", file.stem, word) for word in arguments]
    # The finished run has a smaller space than the quick start.
    smallest = str(finished[0].space.smallest)
    arguments = [re.sub(r"^stem\d.*", smallest, word) for word in arguments]
    Path("edgesearch.yaml").unlink(missing_ok=True)
    if name == "init":
        monkeypatch.setattr("edgesearch.stages.init.glance_at", refuses)
    elif "edgesearch.yaml" in arguments:
        init("images", device="local-cpu", wishes=Wishes(share=0.5))
    has_work = name in ("run", "plan", "profile", "pretrain") and arguments != [QUICK_START]
    has_work &= "--help" not in arguments
    # The smallest network of the finished run takes more than the share that is shown.
    arguments = [word.replace("of_largest=0.4", "of_largest=0.9") for word in arguments]
    if has_work:
        for beginning in BEGINNINGS:
            monkeypatch.setattr(beginning, begins)
        # The machine of imagenet_resnet50to101.yaml has more memory than that of the tests.
        monkeypatch.setattr("edgesearch.run.room.machine_memory", lambda: 1 << 40)
    done = CliRunner().invoke(app, [name, *arguments])
    if has_work:
        assert (done.exit_code, "the work begins" in done.stderr) == (130, True), done.stderr
    elif name in AFTER:  # shown after another command, which is stopped here
        assert done.exit_code == 2
        assert f"Run `edgesearch {AFTER[name]}`" in done.stderr
    else:
        assert done.exit_code == 0, done.stderr


OVERRIDE = r"[a-z_]+\.[a-z0-9_.]+=.+"
OVERRIDES = sorted(
    {
        code
        for text in PAGES.values()
        for code in code_in_sentences(text)
        if re.fullmatch(OVERRIDE, code)
    }
)


@pytest.mark.parametrize("text", OVERRIDES)
def test_each_override_in_a_sentence_is_understood(text):
    first, *more = [
        re.sub(r"\b[A-Z]{2,}\b(?=$| |/)", lambda m: FILLED.get(m[0], m[0]), word)
        for word in re.split(r" (?=[a-z_]+\.[a-z_.]+=)", text)
    ]
    base = ["pretrain.init=efficientnet-lite0"] if "epochs=0" in text else []
    of_weights = ["pretrain.init=efficientnet-lite0", "pretrain.teacher.init=true"]
    base += of_weights if text.startswith("pretrain.teacher.dense") else []
    base += [] if "data.source" in text else ["data.source=folder", "data.root=images"]
    base += ["finetune.task=classification"] if text.startswith("finetune.") else []
    base += ["finetune.task=detection"] if "letterbox" in text else []
    key, _, value = first.partition("=")
    choices = value.split("|") if kinds_at(Config, key.split(".")) else [value]
    for choice in choices:
        load_config("cifar10", [*base, f"{key}={choice.strip(chr(39))}", *more])
    assert choices


def test_each_key_in_a_sentence_is_known():
    known = [key.path for key in keys()]
    sections = {path.partition(".")[0] for path in known if "." in path}
    shown = {
        code
        for text in PAGES.values()
        for code in code_in_sentences(text)
        if re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+)+", code) and code.partition(".")[0] in sections
    }
    assert len(shown) > 20
    files = re.compile(r".*\.(html|json|jsonl|csv|png|yaml|safetensors|engine|onnx|ort)")
    unknown = {
        each
        for each in shown
        if not files.fullmatch(each)
        and not any(path == each or path.startswith(f"{each}.") for path in known)
    }
    assert unknown == set()


def test_each_option_in_a_sentence_is_one_of_a_command():
    group = typer.main.get_command(app)
    known = {"--help", "--version"} | {
        name
        for command in group.commands.values()
        for parameter in command.params
        for name in parameter.opts
    }
    of_others = {"--draw", "--json", "--shm-size"}  # the kit's, docker's
    shown = {
        word
        for text in PAGES.values()
        for code in code_in_sentences(text)
        if code.startswith("-")
        for word in re.findall(r"(?<!\S)--?[a-z][a-z-]*", code)
    }
    assert len(shown) > 5
    assert shown <= known | of_others


def test_the_space_that_is_written_out_is_valid(tmp_path):
    (block,) = (b for kind, b in fences(PAGES["docs/how-to/space.md"]) if kind == "yaml")
    values = yaml.safe_load((ROOT / "configs/photos_mobile_small.yaml").read_text("utf-8"))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values | yaml.safe_load(block)), "utf-8")
    assert load_config(str(path)).space.build().name == "mine"


def test_the_device_that_is_written_out_is_valid(tmp_path):
    (block,) = (b for kind, b in fences(PAGES["docs/how-to/device.md"]) if kind == "yaml")
    values = yaml.safe_load(CONFIGS["quickstart"].read_text("utf-8"))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values | yaml.safe_load(block)), "utf-8")
    device = load_config(str(path)).device.build()
    assert (device.name, device.transport, device.hosts) == ("my-board", "ssh", ("board",))


def test_links_to_a_part_of_the_images(tmp_path):
    head = CONFIGS["imagenet_resnet50to101"].read_text("utf-8").partition("\n\n")[0]
    (script,) = re.findall(r"^#     while.*(?:\n#     .*)+", head, re.M)
    script = re.sub(r"^#     ", "", script, flags=re.M)
    for name in ("train/a/1.JPEG", "train/a/2.JPEG", "train/b/3.JPEG", "val/a/4.JPEG"):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).touch()
    (tmp_path / "LIST").write_text("a/2.JPEG\nb/3.JPEG\n")
    script = script.replace("PATH", str(tmp_path / "all"))
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    small = tmp_path / "SMALL"
    assert sorted(path.name for path in (small / "train").rglob("*.JPEG")) == ["2.JPEG", "3.JPEG"]
    assert (small / "train/a/2.JPEG").exists() and (small / "val/a/4.JPEG").exists()


def test_the_session_of_onnxruntime_runs(finished, monkeypatch, capsys):
    (block,) = (b for kind, b in fences(PAGES["docs/how-to/deploy.md"]) if kind == "python")
    engine = next(finished[0].output_dir.glob("engines/*/subnet.onnx"))
    monkeypatch.chdir(engine.parent)
    exec(compile(block, "deploy.md", "exec"), {})
    assert "architecture" in capsys.readouterr().out
