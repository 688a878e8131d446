"""What is stopped, killed or out of room says so, goes on, and comes to the same end."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Many images, so that a trial takes long enough to be stopped in.
SLOW = ("search.evaluations=13", "search.images=1024", "search.calibration_images=256")


@pytest.mark.slow
def test_a_killed_search_comes_to_the_same_end(chain, wait_for):
    """How profiling and training are killed is tried in the tests of profilers and pretrain."""
    chain.passes("search", *SLOW)
    undisturbed = [chain.lines(name) for name in ("search/trials.jsonl", "winners.json")]
    shutil.rmtree(chain.output_dir / "search")
    when = lambda: len(chain.lines("search/trials.jsonl")) > 4  # noqa: E731
    killed = chain.stopped("search", signal.SIGKILL, when, *SLOW)
    assert killed.returncode == -signal.SIGKILL
    before = chain.lines("search/trials.jsonl")
    chain.passes("search", *SLOW)
    after = [chain.lines(name) for name in ("search/trials.jsonl", "winners.json")]
    assert after[0][: len(before) - 1] == before[:-1]
    assert after == undisturbed


def test_a_stopped_export_goes_on(chain):
    shutil.rmtree(chain.output_dir / "engines")
    when = (chain.output_dir / "engines/w0/subnet.onnx").exists
    stopped = chain.stopped("export", signal.SIGINT, when)
    assert stopped.returncode == 130, stopped.stderr
    assert "Run the same command again to continue." in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (chain.output_dir / "engines/w0/manifest.json").exists()
    chain.passes("export", "export.tensorrt=")
    assert (chain.output_dir / "engines/w0/manifest.json").exists()
    assert "measured_p50" in (chain.output_dir / "winners.json").read_text()


def children_of(pid):
    children = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            children += map(int, (task / "children").read_text().split())
    return children


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="finds the workers by Linux's /proc"
)
def test_a_killed_loader_of_images_is_said_and_the_run_goes_on(empty, wait_for):
    one_by_one = ("pretrain.augmentation.batched=false", "pretrain.workers=2")
    process = empty.start("pretrain", *one_by_one, "--json")
    wait_for((empty.output_dir / "supernet/state.pt").exists, process)
    wait_for(lambda: children_of(process.pid), process)
    os.kill(children_of(process.pid)[0], signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 2, err
    assert err.count("error: required:") == 1
    assert "Traceback" not in err
    error = json.loads(out)["error"]
    assert error["required"].startswith("worker processes (pretrain.workers)")
    assert error["found"].startswith("DataLoader worker (pid")
    assert "set fewer pretrain.workers" in error["remedy"]
    again = empty.passes("pretrain", one_by_one[0], "pretrain.workers=0")
    assert "resuming where it was stopped" in again.stderr
    metrics = [json.loads(line) for line in empty.lines("supernet/metrics.jsonl")]
    assert [line["epoch"] for line in metrics] == [1, 2]


@pytest.mark.slow
def test_little_shared_memory_is_said_and_the_run_goes_on(empty):
    """As in a container, whose default of 64 MB larger batches exceed."""
    small = 'mount -t tmpfs -o size=200k tmpfs /dev/shm && exec "$@"'
    inside = ["unshare", "--mount", "sh", "-c", small, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*inside, "true"], check=False).returncode:
        pytest.skip("mounting a file system of one's own takes Linux and root")
    one_by_one = ("pretrain.augmentation.batched=false", "pretrain.batch_size=128")
    command = empty.command("pretrain", *one_by_one, "pretrain.workers=2")
    done = subprocess.run(
        [*inside, *command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: required: enough shared memory, about ") == 1
    assert "Traceback" not in done.stderr
    assert "are free in /dev/shm\n" in done.stderr
    again = [*inside, *empty.command("pretrain", *one_by_one, "pretrain.workers=0")]
    assert subprocess.run(again, timeout=600, check=False).returncode == 0


@pytest.mark.parametrize(
    ("stage", "gone", "name"),
    [
        ("pretrain", "supernet", "model.safetensors"),
        ("pretrain", "supernet", "state.pt"),
        ("search", "search", "images.json"),
        ("search", "search", "chosen.json"),
        ("export", "engines", "subnet.safetensors"),
        ("export", "engines", "manifest.json"),
        ("evaluate", "summary", "results.json"),
    ],
)
def test_a_full_disk_is_one_message_and_with_room_it_goes_on(chain, monkeypatch, stage, gone, name):
    """Lines that are appended are tried in the tests of devices and profilers."""

    def replace_where_there_is_room(source, target):
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
        replace(source, target)

    replace = os.replace
    shutil.rmtree(chain.output_dir / gone)
    overrides = ("export.tensorrt=", "evaluation.train_images=50")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_where_there_is_room)
        chain.refuses(stage, *overrides, says=(name, "No space left on device", "Free space"))
    chain.passes(stage, *overrides)


LIMITED = """
import resource, runpy, sys
import edgesearch.stages.run, numpy, onnx, onnxruntime, torch, torch.onnx
numpy.linalg.inv(numpy.eye(64))  # OpenBLAS ends the process if it finds no room for its buffers
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (int(sys.argv[1]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv[:2] = ["edgesearch"]
runpy.run_module("edgesearch", run_name="__main__")
"""
"""The command line with so many MiB more than its libraries need."""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_a_lack_of_memory_is_one_message(empty):
    """In pre-training, whose one large allocation fails; where many small ones may, any library's
    error can come of it."""
    command = [sys.executable, "-c", LIMITED, "100"]
    command += empty.command("pretrain", "space.resolutions=[128]")[3:]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: required: ") == 1
    assert "Traceback" not in done.stderr
    assert "memory for " in done.stderr
    assert "top other programs" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "folder", "room_kib", "says"),
    [
        ("pretrain", "supernet", 40, "of free space for training states"),  # told beforehand
        ("search", "search", 0, "No space left on device"),
        ("search", "search", 8, "No space left on device"),
    ],
)
def test_a_disk_that_is_really_full(finished, tmp_path, stage, folder, room_kib, says):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        chain = finished[0].copied(disk)
        shutil.rmtree(chain.output_dir / folder)
        state = os.statvfs(disk)
        free = state.f_bavail * state.f_frsize
        (disk / "filler").write_bytes(bytes(free - (room_kib << 10)))
        chain.refuses(stage, says=says)
        (disk / "filler").unlink()
        chain.passes(stage)
    finally:  # lazily: weights that were read may still be mapped into memory
        subprocess.run(["umount", "--lazy", str(disk)], capture_output=True, check=False)
