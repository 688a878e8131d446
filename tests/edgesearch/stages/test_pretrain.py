"""What a training refuses before anything is set aside, and what it says and does all the same."""

import json
import re
import shutil

import pytest
from PIL import Image

from edgesearch.errors import CheckpointError, DataError, StageError, TrainingError
from edgesearch.processes import distributed

ONE_EPOCH = {"epochs": 1}
WEIGHTS = "supernet/model.safetensors"


@pytest.fixture
def trained(empty):
    """Trains in a folder of this name for an epoch, and gives the folder and what was said."""

    def trained(name, data=None, **options):
        folder = empty.output_dir.with_name(name)
        said = []
        chain = type(empty)(empty.config, folder)
        run = chain.api(data=data or {}, pretrain={**ONE_EPOCH, **options})
        run.report = lambda event: said.append(event.message)
        run.pretrain()
        return folder, "\n".join(said)

    return trained


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"batch_size": 2048, "queue_size": 2048},
            DataError,
            "at least one batch of 2048 images for training; found: 1438 images",
        ),
        (
            {"bn_group_size": 48},
            TrainingError,
            "a pretrain.bn_group_size that divides the 64 images",
        ),
    ],
)
def test_a_finished_training_stays_where_it_is(chain, options, error, message):
    before = chain.read("supernet/stage.json")
    with pytest.raises(error, match=message):
        chain.api(pretrain=options).pretrain()
    assert chain.read("supernet/stage.json") == before
    assert not (chain.output_dir / "supernet.1").exists()
    assert chain.api().pretrain().skipped


def test_other_images_than_those_of_the_first_process(empty, monkeypatch):
    monkeypatch.setattr(distributed, "of_first", lambda value: dict.fromkeys(value, "another"))
    with pytest.raises(StageError, match="the set of images to be the same for all processes; fo"):
        empty.api().pretrain()


def test_nothing_that_can_be_read(chain, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"nothing")
    folder = ("data.source=folder", f"data.root={tmp_path / 'images'}")
    chain.refuses("pretrain", *folder, says=("at least one image in", "none of 1"))


def test_a_half_written_state_of_a_stopped_training(chain):
    folder = chain.output_dir / "supernet"
    chain.write("supernet/stage.json", {**chain.read("supernet/stage.json"), "finished": False})
    state = (folder / "state.pt").read_bytes()
    (folder / "state.pt").write_bytes(state[: len(state) // 2])
    weights = (folder / "model.safetensors").read_bytes()
    said = chain.passes("pretrain").stderr
    told = r"state.pt is damaged: continuing from the previous state, after epoch 1"
    assert len(re.findall(told, said)) == 1
    assert "pretrain 2/2" in said and "pretrain 1/2" not in said
    assert (folder / "model.safetensors").read_bytes() == weights


class TestWeightsToStartFrom:
    def test_its_own_are_none(self, chain):
        for init in ("", "supernet", WEIGHTS):
            message = "weights of another run for pretrain.init; found: .*, which this run writes"
            with pytest.raises(CheckpointError, match=message):
                chain.api(pretrain={"init": str(chain.output_dir / init)}).pretrain()
        assert chain.api().pretrain().skipped

    def test_of_another_space_are_none(self, finished, empty):
        other = {"stage_depths": [[1, 2], [1]]}
        run = empty.api(space=other, pretrain={"init": str(finished[0].output_dir)})
        with pytest.raises(CheckpointError, match="with stage_depths .*; found: stage_depths"):
            run.pretrain()
        assert not (empty.output_dir / "supernet").exists()

    def test_of_another_run_are_a_start(self, finished, empty):
        init = {"init": str(finished[0].output_dir), **ONE_EPOCH}
        empty.api(pretrain=init).pretrain()
        assert (empty.output_dir / WEIGHTS).read_bytes() != (
            finished[0].output_dir / WEIGHTS
        ).read_bytes()
        assert empty.api(pretrain=init).pretrain().skipped

    def test_of_another_method_are_said(self, finished, trained):
        init = str(finished[0].output_dir)
        _, said = trained("simclr", method="simclr", queue_size=None, init=init)
        assert "the initial weights were trained by moco_v2: simclr uses the backbones" in said
        assert "the initial weights" not in trained("moco", init=init)[1]


def test_few_images_a_large_queue_and_tiny_images_are_said(chain, trained, tmp_path):
    (tmp_path / "flat").mkdir()
    for number in range(80):
        Image.new("L", (16, 16), 3 * number).save(tmp_path / "flat" / f"{number}.png")
    data = {"source": "folder", "root": str(tmp_path / "flat")}
    large = "a queue of 128 is more than a quarter of the 80 images"
    folder, said = trained("few", data)
    assert large in said
    assert "are enlarged" not in said
    # Of predictions, not of negatives, a queue does no harm.
    no_negatives = {"method": "ressl", "queue_size": 128}
    assert large not in trained("ressl", data, **no_negatives)[1]
    shutil.copytree(folder / "supernet", chain.output_dir / "few/supernet")
    for path in (tmp_path / "flat").iterdir():
        Image.open(path).resize((6, 7)).save(path)
    _, said = trained("tiny", data)
    assert "images with a short side of 6 pixels are enlarged to 16" in said


def test_a_collapse_is_said_once(chain, trained):
    """A decay so strong that nothing is left but the bias of the projector."""
    collapsing = {"weight_decay": 5, "lr": 0.06, "momentum": 0, "projector_bn": False, "epochs": 4}
    folder, said = trained("collapse", **collapsing)
    assert said.count("embeddings collapsed (spread 0.0") == 1
    lines = (folder / "supernet/metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["collapsed"] for line in lines] == [False, True, True, True]
