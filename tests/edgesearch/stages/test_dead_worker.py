"""A process that loads images is killed: one message, exit code 2, and the run can go on."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

OVERRIDES = ("pretrain.augmentation.batched=false", "pretrain.workers=2")


def children_of(pid):
    children = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            children += map(int, (task / "children").read_text().split())
    return children


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="finds the workers by Linux's /proc"
)
def test_a_killed_worker_is_said_and_the_run_goes_on(chain):
    folder = chain.output_dir / "supernet"
    shutil.rmtree(folder)
    process = subprocess.Popen(
        [*chain.command("pretrain", *OVERRIDES), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 600
    workers = []
    while not workers:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
        workers = children_of(process.pid) if (folder / "state.pt").exists() else []
    os.kill(workers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 2, err
    assert err.count("error: required:") == 1
    assert "Traceback" not in err
    error = json.loads(out)["error"]
    assert error["required"].startswith("processes that load images (pretrain.workers)")
    assert error["found"].startswith("DataLoader worker (pid")
    assert "set fewer pretrain.workers" in error["remedy"]
    again = chain.run("pretrain", OVERRIDES[0], "pretrain.workers=0")
    assert again.returncode == 0, again.stderr
    assert "going on where it was stopped" in again.stderr
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in metrics] == [1, 2]
    assert (folder / "best.safetensors").exists()
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
