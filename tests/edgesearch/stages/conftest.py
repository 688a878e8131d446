"""One small run of the whole chain, at which many tests look."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from edgesearch.cli.main import app
from edgesearch.families import space_from_dict

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
    "profile": {"rounds": 4, "networks": 6, "interval": 1.0},
    "pretrain": {
        "epochs": 2,
        "batch_size": 64,
        "queue_size": 128,
        "projector_hidden_dim": 16,
        "projector_dim": 8,
        "projector_bn": True,
        "threads": 1,
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
    "evaluation": {"knn_k": 5},
    "export": {"tensorrt": {"compute_capabilities": ["SM86", "SM89"]}},
}


@pytest.fixture(scope="session")
def small_config():
    """The configuration of the small run, without an output folder."""
    return CONFIG


@dataclass(frozen=True)
class Chain:
    """The command line, on one configuration and one output folder."""

    config: Path
    output_dir: Path

    @property
    def space(self):
        return space_from_dict(CONFIG["space"])

    def command(self, stage, *overrides):
        where = (str(self.config), f"output_dir={self.output_dir}")
        return [sys.executable, "-m", "edgesearch", stage, *where, *overrides]

    def run(self, stage, *overrides):
        return subprocess.run(
            self.command(stage, *overrides),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    def call(self, stage, *overrides):
        """As `run`, but in this process, which has imported everything."""
        command = self.command(stage, *overrides)
        done = CliRunner().invoke(app, command[3:])
        return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)

    def stopped(self, stage, number, when, *overrides):
        """Start a stage, send it a signal as soon as `when()` is true, and wait for its end."""
        process = subprocess.Popen(
            self.command(stage, *overrides),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 600
        while not when() and process.poll() is None:
            assert time.monotonic() < deadline, "the moment never came"
            time.sleep(0.002)
        assert process.poll() is None, f"it ended before the moment: {process.stderr.read()}"
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def copied(self, folder):
        """The same state in another folder, where a test may spoil it."""
        shutil.copytree(self.output_dir, folder / "out")
        return Chain(self.config, folder / "out")

    @staticmethod
    def before_the_first_look(lines, measured):
        """Lines of a table with more of them before the first look at the reference workload.

        After it they would count as rounds of a busy machine whenever the last look met one.
        """
        first = next(n for n, line in enumerate(lines) if '"kind": "reference"' in line)
        return [*lines[:first], *measured, *lines[first:]]


@pytest.fixture(scope="session")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "chain.yaml"
    path.write_text(yaml.safe_dump({"output_dir": "unused", **CONFIG}))
    return path


@pytest.fixture(scope="session")
def finished(config_file, tmp_path_factory):
    """A finished run, and what it printed. Do not write into it: take `copied`."""
    chain = Chain(config_file, tmp_path_factory.mktemp("finished") / "out")
    done = chain.run("run")
    assert done.returncode == 0, done.stderr
    return chain, done


@pytest.fixture
def chain(finished, tmp_path):
    """A copy of the finished run."""
    return finished[0].copied(tmp_path)


INTERRUPT, TERMINATE, KILL = signal.SIGINT, signal.SIGTERM, signal.SIGKILL
