"""`edgesearch init` on real folders, and the file that it writes."""

import os
import pty
import resource
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edgesearch import Run
from edgesearch.cli.main import app
from edgesearch.config import load_config
from edgesearch.config.starting_point import Wishes
from edgesearch.data.label_layouts import layouts_in
from edgesearch.errors import ConfigError, DataError
from edgesearch.stages import init as module
from edgesearch.stages.init import budget_of, init
from edgesearch.stages.plan import check_run

HALF = Wishes(share=0.5)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_installed", lambda name: None)


def photographs(folder, count=12, size=(64, 48), mode="RGB", ending="png"):
    noise = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        channels = {"RGB": (3,), "L": (), "I;16": ()}[mode]
        high, kind = (65535, np.uint16) if mode == "I;16" else (255, np.uint8)
        pixels = noise.integers(0, high, (size[1], size[0], *channels)).astype(kind)
        Image.fromarray(pixels).save(path)
    return folder


def call(*arguments):
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def test_a_folder_with_classes_and_spaces_in_its_name(tmp_path):
    for name in ("red kite", "buzzard"):
        photographs(tmp_path / "my birds" / name)
    task = ("--task", "classification")
    done = call("my birds", "--share", "0.4", "--device", "local-cpu", *task)
    assert done.exit_code == 0, done.stderr
    assert "edgesearch plan edgesearch.yaml" in done.stdout
    config = load_config("edgesearch.yaml")
    assert config.data.root.name == "my birds"
    assert config.search.budgets.latency_of_largest == 0.4
    assert config.finetune.task == "classification"
    assert str(config.output_dir) == "runs/my-birds"
    assert config.space.build().in_channels == 3
    assert "2 classes" in done.stderr
    text = (tmp_path / "edgesearch.yaml").read_text()
    assert "the smallest class has 10 training images" in text


def words_of(command):
    """What bash makes of a command."""
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True).stdout
    return os.fsdecode(said).rstrip("\0").split("\0")


@pytest.mark.parametrize("name", ["my birds.yaml", "-x.yaml", "a\nb '.yaml"])
def test_the_commands_shown_work_for_any_name(tmp_path, name):
    photographs(tmp_path / "photos")
    done = call("photos", "--share", "0.4", "--file", name, "--device", "local-cpu")
    assert done.exit_code == 0, done.stderr
    (shown,) = (line.split("#")[0] for line in done.stdout.splitlines() if " plan " in line)
    (written,) = (
        line.lstrip("# ").split("  #")[0]
        for line in (tmp_path / name).read_text("utf-8").splitlines()
        if line.startswith("#     edgesearch plan ")
    )
    assert words_of(shown) == words_of(written)
    *_, argument = words_of(shown)
    assert not argument.startswith("-")
    assert load_config(argument).search.budgets.latency_of_largest == 0.4


@pytest.mark.parametrize("name", ["Häuser 😀", "a\nb", "\udce4"])
def test_images_in_a_folder_of_any_name(tmp_path, name):
    photographs(tmp_path / name)
    init(name, wishes=HALF, path=Path(f"{name}.yaml"))
    assert load_config(f"{name}.yaml").data.root.name == name


def test_a_file_that_cannot_be_written_is_not_left_behind(tmp_path):
    photographs(tmp_path / "photos")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, former[1]))
    try:
        with pytest.raises(ConfigError, match="File too large"):
            init("photos", wishes=HALF)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert not (tmp_path / "edgesearch.yaml").exists()
    init("photos", wishes=HALF)


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_grey_images_have_one_channel(tmp_path, mode):
    photographs(tmp_path / "grey", mode=mode)
    assert init("grey", wishes=HALF).path.exists()
    assert load_config("edgesearch.yaml").space.build().in_channels == 1


def test_installed_weights_lead_to_their_space(tmp_path, monkeypatch):
    photographs(tmp_path / "photos")
    monkeypatch.setattr(module, "_installed", lambda name: name)
    init("photos", device="local-cpu", wishes=HALF)
    config = load_config("edgesearch.yaml")
    assert (config.space.name, config.pretrain.epochs) == ("mobile_lite0", 0)
    assert (
        "pretrain.method=distillation pretrain.teacher=init"
        in (tmp_path / "edgesearch.yaml").read_text()
    )


def test_shards_are_read_in_place(tmp_path):
    photographs(tmp_path / "loose")
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards/a.tar", "w") as archive:
        archive.add(tmp_path / "loose", "x")
    for images in ("shards", "shards/a.tar", "shards/*.tar"):
        init(images, wishes=HALF, path=tmp_path / f"{images.count('*')}{len(images)}.yaml")
    assert load_config("06.yaml").data.source == "shards"


def test_a_file_that_exists_is_not_overwritten(tmp_path):
    photographs(tmp_path / "photos")
    (tmp_path / "edgesearch.yaml").write_text("mine")
    done = call("photos", "--share", "0.5")
    assert done.exit_code == 2
    assert "--file NAME.yaml" in done.stderr
    assert (tmp_path / "edgesearch.yaml").read_text() == "mine"
    assert call("photos", "--share", "0.5", "--file", "other.yaml").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--share", "0.5"], "nothing of that name"),
        (["list.csv", "--share", "0.5"], "Give the folder that holds the images"),
        (["photos/*.png", "--share", "0.5"], "a pattern of other files, photos/*.png"),
        (["few", "--share", "0.5"], "at least 4 training images"),
        (["photos", "--device", "local-cpy"], "Did you mean local-cpu?"),
        (["photos", "--share", "0"], "a number above 0 and up to 1 for --share"),
        (["photos", "--share", "1.01"], "a number above 0 and up to 1 for --share"),
        (["photos", "--latency-ms", "-1"], "a number above 0 that is finite for --latency-ms"),
        (["photos", "--latency-ms", "nan"], "a number above 0 that is finite for --latency-ms"),
        (["photos", "--latency-ms", "inf"], "a number above 0 that is finite for --latency-ms"),
        (["photos", "--share", "0.5", "--latency-ms", "3"], "--latency-ms"),
        (["photos", "--share", "0.5", "--task", "classification"], "images of each class"),
        (["photos", "--share", "0.5", "--task", "detection"], "labels/*.txt beside images/"),
        (["photos", "--share", "0.5", "--task", "segmentation"], "found: none of them; no classes"),
        (["single", "--share", "0.5", "--task", "classification"], "Add images to the classes"),
        (["nowhere", "--share", "0.5", "--task", "detection"], "nothing of that name"),
        (["photos", "--share", "0.5", "--task", "chess"], "or leave it out"),
        (["photos", "--share", "0.5", "--host", "board"], "a device over ssh"),
        # before the images are read, and anything is measured
        (["nowhere", "--share", "0.5", "--file", "none/x.yaml"], "Choose another with --file"),
    ],
)
def test_what_is_wrong_is_one_message_and_nothing_is_written(tmp_path, arguments, message):
    photographs(tmp_path / "photos")
    photographs(tmp_path / "few", count=3)
    for name in "abcde":
        photographs(tmp_path / "single" / name, count=1)
    (tmp_path / "list.csv").write_text("path,label\n")
    done = call(*arguments)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.replace("│", "").split())
    assert not list(tmp_path.glob("**/*.yaml"))


SMALL = (
    *("space.stem_widths=[8]", "space.stage_widths=[[8],[16],[16,24],[24]]"),
    *(
        "space.stage_depths=[[1],[1],[1],[1]]",
        "pretrain.epochs=1",
        "profile.rounds=2",
        "profile.least_ms=0",
    ),
    *("profile.interval=1.0", "profile.networks=6", "search.evaluations=2", "finetune.epochs=1"),
    "export.tensorrt.compute_capabilities=[SM86]",
)
"""Of a configuration for images of 32 pixels: as little as a run can be."""


@pytest.fixture(params=["classification", "detection", "segmentation"])
def task(request, tmp_path, labelled):
    """A task for which `edgesearch.yaml` has been written."""
    labelled(tmp_path / "tiny", request.param)
    budget = ("--latency-ms", "1000")
    done = call("tiny", "--task", request.param, *budget, "--device", "local-cpu")
    assert done.exit_code == 0, done.stderr
    return request.param


def test_a_configuration_with_a_task_is_accepted_as_it_is(task):
    run = Run("edgesearch.yaml")
    assert (run.config.finetune.task, run.config.finetune.batch_size) == (task, 2)
    assert run.config.search.task == task
    check_run(run, anew=False)


@pytest.mark.slow
def test_a_configuration_with_a_task_runs(tmp_path, task):
    done = CliRunner().invoke(app, ["run", "edgesearch.yaml", *SMALL])
    assert done.exit_code == 0, done.stderr
    assert "judged on" in done.stdout
    assert (tmp_path / "runs/tiny/finetune/results.json").exists()


@pytest.mark.parametrize(
    ("task", "labels"), [("detection", "yolo"), ("segmentation", "maps"), ("classification", "csv")]
)
def test_labels_are_found_where_they_lie(tmp_path, labelled, task, labels):
    folder = labelled(tmp_path / "tiny", task)
    if task == "classification":
        rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in folder.glob("*/*.png")]
        (folder / "labels.csv").write_text("\n".join(rows))
        assert init("tiny", wishes=Wishes(share=0.5, task=task)).path.exists()
        assert load_config("edgesearch.yaml").data.labels == "folders"
        (tmp_path / "edgesearch.yaml").unlink()
        (folder / "b").rename(folder / "a/b")
        (folder / "labels.csv").write_text("\n".join(rows).replace("b/", "a/b/"))
    init("tiny", wishes=Wishes(share=0.5, task=task))
    assert load_config("edgesearch.yaml").data.labels == labels


def test_other_labels_beside_the_chosen_ones_are_told(tmp_path, labelled):
    folder = labelled(tmp_path / "tiny", "detection")
    (folder / "coco").mkdir()
    (folder / "coco/instances_train.json").write_text("{}")
    with pytest.raises(DataError, match="a JSON file with COCO's images"):
        init("tiny", wishes=Wishes(share=0.5, task="detection"))
    shutil.rmtree(folder / "coco")
    (folder / "masks/red").mkdir(parents=True)
    Image.new("L", (32, 32)).save(folder / "masks/red/0.png")
    assert layouts_in(folder, "segmentation") == ("masks",)
    assert layouts_in(folder, "detection") == ("yolo",)


def test_maps_are_no_images_without_a_task(tmp_path, labelled):
    folder = labelled(tmp_path / "tiny", "segmentation")
    result = init("tiny", wishes=HALF)
    assert (result.understood.train, result.understood.test) == (24, 8)
    assert load_config("edgesearch.yaml").data.root.name == "images"
    assert any("--task segmentation" in note for note in result.notes)
    shutil.rmtree(folder / "labels")
    result = init("tiny", wishes=HALF, path=tmp_path / "b.yaml")
    assert not any("--task" in note for note in result.notes)


def test_masks_that_are_taken_for_maps_are_refused(tmp_path, labelled):
    folder = labelled(tmp_path / "tiny", "segmentation")
    for path in folder.glob("labels/*/*.png"):
        Image.fromarray(255 * (np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    with pytest.raises(DataError, match="255 means no class. Move them to masks/NAME/"):
        init("tiny", wishes=Wishes(share=0.5, task="segmentation"))
    shutil.copytree(folder / "labels", folder / "masks/thing")
    shutil.rmtree(folder / "labels")
    result = init("tiny", wishes=Wishes(share=0.5, task="segmentation"))
    assert result.understood.classes == ("background", "thing")


def test_one_image_of_another_size_decides_nothing(tmp_path, labelled):
    folder = labelled(tmp_path / "tiny", "detection")
    for path in folder.glob("images/train/*"):
        Image.open(path).resize((200, 200)).save(path)
    Image.new("RGB", (600, 100)).save(folder / "images/train/1.png")
    init("tiny", wishes=Wishes(share=0.5, task="detection"))
    config = load_config("edgesearch.yaml")
    assert config.space.resolutions == [160]
    assert config.finetune.fit == "stretch"


def test_the_folder_here(tmp_path, monkeypatch):
    monkeypatch.chdir(photographs(tmp_path / "photos"))
    assert init(".", wishes=HALF).understood.train == 12
    assert str(load_config("edgesearch.yaml").output_dir) == "runs/photos"


@pytest.mark.parametrize(
    ("answer", "budget"),
    [
        ("5", (5.0, None)),
        ("0.5 ms", (0.5, None)),
        ("50%", (None, 0.5)),
        (" 12.5 % ", (None, 0.125)),
    ],
)
def test_answers_of_the_budget(answer, budget):
    assert budget_of(answer) == budget


@pytest.mark.parametrize("answer", ["", "fast", "0", "0%", "120%", "-3", "nan"])
def test_other_answers_are_refused(answer):
    with pytest.raises(ConfigError):
        budget_of(answer)


def test_at_most_four_questions(tmp_path, monkeypatch):
    photographs(tmp_path / "photos")
    monkeypatch.setattr(module, "_installed", lambda name: name)
    asked = []

    def ask(question):
        asked.append(question.text)
        return "raspberry-pi-5" if question.text.startswith("Device") else question.default

    init("photos", ask=ask)
    assert len(asked) == len(set(asked)) == 4
    assert load_config("edgesearch.yaml").device.host == "raspberry-pi-5"
    asked.clear()
    init("photos", device="local-cpu", wishes=HALF, path=tmp_path / "b.yaml", ask=ask)
    assert len(asked) == 1  # on the weights


def test_on_a_terminal_it_asks_and_asks_again(tmp_path):
    photographs(tmp_path / "photos")
    terminal, its_end = pty.openpty()
    file = str(tmp_path / "edgesearch.yaml")
    command = [sys.executable, "-m", "edgesearch", "init", str(tmp_path / "photos")]
    process = subprocess.Popen(
        [*command, "--device", "local-cpu", "--file", file],
        stdin=its_end,
        stderr=its_end,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    os.close(its_end)
    os.write(terminal, b"fast\n30%\nno\n\x04\x04\x04")
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert b"required: a budget in milliseconds" in shown
    assert load_config(file).search.budgets.latency_of_largest == 0.3


def test_what_is_advised_can_be_done_without_a_configuration(tmp_path):
    for name in ("robin", "rook"):
        photographs(tmp_path / "photos" / name)
    (tmp_path / "photos" / "wren").symlink_to("nothing")
    said = call("photos", "--share", "0.5").stderr
    assert said.endswith("because of wren/ (linked to nothing)\n  Mend or remove these.\n")
    (tmp_path / "photos" / "wren").unlink()
    assert call("photos", "--share", "0.5").exit_code == 0


def test_images_without_any_that_can_be_read(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"\.jpg, \.png"):
        init("empty", wishes=HALF)
