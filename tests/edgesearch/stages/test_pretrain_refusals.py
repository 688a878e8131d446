"""What cannot be trained so is refused before anything of a former training is set aside."""

import dataclasses
import hashlib

import pytest

from edgesearch import stages as workflow
from edgesearch.errors import CheckpointError, DataError, TrainingError
from edgesearch.families import load_space

SPACE = load_space("resnet_tiny", in_channels=1, stage_depths=[[1], [1], [1]])
OPTIONS = {"queue_size": 256, "projector_hidden_dim": 16, "projector_dim": 8, "projector_bn": True}
TRAINER = workflow.TrainerConfig(epochs=1, lr=0.01, monitor_every_epochs=0)
VIEWS = workflow.ViewOptions(workflow.Augmentation(flip_probability=0.0), True, 256)


def pretrain(folder, **changes):
    return workflow.pretrain(
        **{
            "space": SPACE,
            "images": workflow.DataSettings("digits"),
            "output_dir": folder,
            "trainer": TRAINER,
            "views": VIEWS,
            "method_options": OPTIONS,
            "threads": 1,
            **changes,
        }
    )


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    pretrain(folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"views": dataclasses.replace(VIEWS, batch_size=2048)},
            DataError,
            "at least one batch of 2048 images for training; found: 1438 images",
        ),
        (
            {"hardware": workflow.Hardware(bn_group_size=48)},
            TrainingError,
            "a pretrain.bn_group_size that divides the 256 images",
        ),
        (
            {"trainer": dataclasses.replace(TRAINER, distill=1.0, faithful=True)},
            TrainingError,
            "moco_v2 without distillation",
        ),
    ],
)
def test_a_finished_training_stays_where_it_is(finished, changes, error, message):
    before = contents(finished)
    with pytest.raises(error, match=message):
        pretrain(finished, **changes)
    assert contents(finished) == before
    assert pretrain(finished).skipped


def test_its_own_weights_are_no_start(finished):
    before = contents(finished)
    for init in (finished, finished / "supernet", finished / "supernet/model.safetensors"):
        message = "weights of another run for pretrain.init; found: .*, which this run writes"
        with pytest.raises(CheckpointError, match=message):
            pretrain(finished, init=init)
    assert contents(finished) == before


def test_weights_of_another_space_are_no_start(finished, tmp_path):
    other = load_space("resnet_tiny", in_channels=1, stage_depths=[[1, 2], [1], [1]])
    with pytest.raises(CheckpointError, match="with stage_depths .*; found: stage_depths"):
        pretrain(tmp_path, space=other, init=finished)
    assert not (tmp_path / "supernet").exists()


def test_weights_of_another_run_are_a_start(finished, tmp_path):
    pretrain(tmp_path, init=finished)
    weights = "supernet/model.safetensors"
    assert (tmp_path / weights).read_bytes() != (finished / weights).read_bytes()
    assert pretrain(tmp_path, init=finished).skipped
