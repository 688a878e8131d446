"""Fine-tuning that is killed at any moment, and by several processes."""

import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

KILLS = 5
OPTIONS = (
    "finetune.task=classification",
    "finetune.start=[largest]",
    "finetune.weights=random",
    "finetune.epochs=3",
    "finetune.threads=1",
    "finetune.ema=0.9",
    "finetune.validation=0.2",
    "finetune.checkpoint_minutes=0.01",
    "finetune.tensorboard=false",
)


def weights(chain):
    (path,) = (chain.output_dir / "finetune").glob("*/model.safetensors")
    return load_file(path)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_weights(chain_in, tmp_path, wait_for):
    whole, killed = (chain_in(tmp_path / name) for name in ("whole", "killed"))
    whole.passes("finetune", *OPTIONS)
    rng = random.Random(0)
    for _ in range(KILLS):
        process = killed.start("finetune", *OPTIONS)
        record = killed.output_dir / "finetune" / "stage.json"
        wait_for(record.exists, process)
        time.sleep(rng.uniform(0.5, 4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    killed.passes("finetune", *OPTIONS)
    one, other = weights(whole), weights(killed)
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.slow
def test_two_processes_train_together(chain_in, tmp_path):
    chain = chain_in(tmp_path)
    command = chain.command("finetune", *OPTIONS, "finetune.lr=0.01")[3:]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, "-m", "edgesearch", "finetune", *command[1:]],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert chain.read("finetune/results.json")["rows"][0]["figures"]["accuracy"] > 0.3
