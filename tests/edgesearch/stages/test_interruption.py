"""What is stopped, killed or out of room says so, goes on, and comes to the same end."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

EPOCHS = "pretrain.epochs=6"
# Many images, so that a trial takes long enough to be stopped in.
SLOW = ("search.images=1024", "search.calibration_images=256")


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory):
    """A copy of the finished run in which longer stages ran through."""
    chain = finished[0].copied(tmp_path_factory.mktemp("undisturbed"))
    chain.passes("pretrain", EPOCHS)
    chain.passes("search", *SLOW)
    return chain


def check_stopped(done, number):
    if number == signal.SIGKILL:
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.returncode == 130, done.stderr
        assert "Run the same command again to go on." in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_profile(chain, number):
    table = chain.table
    keys = {json.loads(line).get("key") for line in chain.lines(table)}
    table.unlink()
    when = lambda: len(chain.lines(table)) > 100  # noqa: E731
    check_stopped(chain.stopped("profile", number, when, "profile.rounds=400"), number)
    before = table.read_bytes()
    chain.passes("profile")
    assert table.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    measured = {json.loads(line).get("key") for line in chain.lines(table)}
    of_winners = {key for key in keys if key and key.startswith("winner/")}
    anchors = {key for key in keys | measured if key and key.startswith("anchor/")}
    assert measured - anchors == keys - anchors - of_winners


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_pretrain(chain, undisturbed, number):
    weights, metrics = "supernet/model.safetensors", "supernet/metrics.jsonl"
    shutil.rmtree(chain.output_dir / "supernet")
    when = lambda: len(chain.lines(metrics)) >= 2  # noqa: E731
    check_stopped(chain.stopped("pretrain", number, when, EPOCHS), number)
    assert "going on where it was stopped" in chain.passes("pretrain", EPOCHS).stderr
    epochs = [json.loads(line)["epoch"] for line in chain.lines(metrics)]
    assert epochs == [1, 2, 3, 4, 5, 6]
    same = (undisturbed.output_dir / weights).read_bytes()
    assert (chain.output_dir / weights).read_bytes() == same


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_search(chain, undisturbed, number):
    for stage in ("supernet", "search"):
        shutil.rmtree(chain.output_dir / stage)
    shutil.copytree(undisturbed.output_dir / "supernet", chain.output_dir / "supernet")
    when = lambda: len(chain.lines("search/trials.jsonl")) > 4  # noqa: E731
    check_stopped(chain.stopped("search", number, when, *SLOW), number)
    before = chain.lines("search/trials.jsonl")
    chain.passes("search", *SLOW)
    assert chain.lines("search/trials.jsonl")[: len(before) - 1] == before[:-1]
    for name in ("search/trials.jsonl", "winners.json"):
        assert chain.lines(name) == undisturbed.lines(name)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_export(chain, number):
    shutil.rmtree(chain.output_dir / "engines")
    when = (chain.output_dir / "engines/w0/subnet.onnx").exists
    check_stopped(chain.stopped("export", number, when), number)
    assert not (chain.output_dir / "engines/w0/manifest.json").exists()
    chain.passes("export")
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
    assert error["required"].startswith("processes that load images (pretrain.workers)")
    assert error["found"].startswith("DataLoader worker (pid")
    assert "set fewer pretrain.workers" in error["remedy"]
    again = empty.passes("pretrain", one_by_one[0], "pretrain.workers=0")
    assert "going on where it was stopped" in again.stderr
    metrics = [json.loads(line) for line in empty.lines("supernet/metrics.jsonl")]
    assert [line["epoch"] for line in metrics] == [1, 2]


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


@pytest.mark.slow
@pytest.mark.parametrize("room_kib", [40, 128])
def test_a_disk_that_is_really_full(finished, tmp_path, room_kib):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        chain = finished[0].copied(disk)
        shutil.rmtree(chain.output_dir / "supernet")
        state = os.statvfs(disk)
        free = state.f_bavail * state.f_frsize
        (disk / "filler").write_bytes(bytes(free - (room_kib << 10)))
        chain.refuses("pretrain", says="No space left on device")
        (disk / "filler").unlink()
        chain.passes("pretrain")
    finally:  # lazily: weights that were read may still be mapped into memory
        subprocess.run(["umount", "--lazy", str(disk)], capture_output=True, check=False)
