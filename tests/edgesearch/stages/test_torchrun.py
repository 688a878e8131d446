"""The command line under torchrun."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from edgesearch import stages as workflow
from edgesearch.errors import StageError
from edgesearch.families import load_space
from edgesearch.processes import distributed

OVERRIDES = ("pretrain.epochs=1", "pretrain.batch_size=256", "pretrain.queue_size=256")


@pytest.fixture
def torchrun(tmp_path, small_config):
    """Run a command in two processes; the configuration is that of the small chain."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**small_config, "output_dir": str(tmp_path / "out")}))

    def torchrun(command, *arguments):
        launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        work = ["-m", "edgesearch", command, str(config), *OVERRIDES, *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *launch, *work],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return torchrun


def test_one_of_the_processes_writes_and_speaks(torchrun, tmp_path):
    done = torchrun("pretrain", "pretrain.bn_group_size=32", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["skipped"] is False
    assert done.stderr.count("pretrain 1/1: loss") == 1
    metrics = (tmp_path / "out/supernet/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in metrics] == [1]
    again = torchrun("pretrain", "pretrain.bn_group_size=32", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["skipped"] is True


@pytest.mark.parametrize(
    ("command", "override", "message"),
    [
        ("pretrain", "pretrain.bn_group_size=48", "to one of 2, 4, 8, 16, 32, 64, 128."),
        ("pretrain", "pretrain.epochs=none", "pretrain.epochs"),
        ("run", "pretrain.bn_group_size=32", "required: one process for `edgesearch run`"),
    ],
)
def test_what_is_wrong_is_said_once(torchrun, command, override, message):
    done = torchrun(command, override)
    assert done.returncode != 0
    assert done.stderr.count("error: required:") == 1
    assert message in done.stderr
    assert "fault of edgesearch" not in done.stderr


def test_other_images_than_those_of_the_first_process(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "of_first", lambda value: dict.fromkeys(value, "another"))
    with pytest.raises(StageError, match="the set of images to be the same for all processes; fo"):
        workflow.pretrain(
            space=load_space("resnet_tiny", in_channels=1),
            images=workflow.DataSettings(source="digits"),
            output_dir=tmp_path,
            trainer=workflow.TrainerConfig(epochs=1),
            views=workflow.ViewOptions(workflow.Augmentation()),
            method_options={},
        )
