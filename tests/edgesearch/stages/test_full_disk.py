"""A disk that fills up in any stage: one message, and with room again the stage goes on."""

import os
import shutil
import signal
import subprocess

import pytest
from typer.testing import CliRunner

from edgesearch.cli.main import app

SIZE_BYTES = 16 << 20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few MiB in memory; skips where mounting is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    former = signal.getsignal(signal.SIGTERM)
    yield folder
    signal.signal(signal.SIGTERM, former)
    # Lazily: weights that were read may still be mapped into memory.
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


def fill(disk, room_bytes):
    """Write a file that leaves so much room."""
    state = os.statvfs(disk)
    free = state.f_bavail * state.f_frsize
    (disk / "filler").write_bytes(bytes(free - room_bytes))


def full_then_not(chain, disk, stage, room_bytes, *overrides):
    """Run a stage on a full disk and again on one with room; the message of the first time."""
    fill(disk, room_bytes)
    where = [str(chain.config), f"output_dir={chain.output_dir}", *overrides]
    result = CliRunner().invoke(app, [stage, *where])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("error: required:") == 1
    assert "Traceback" not in result.stderr
    (disk / "filler").unlink()
    again = CliRunner().invoke(app, [stage, *where])
    assert again.exit_code == 0, again.output
    return result.stderr.partition("error: required:")[2]


@pytest.mark.parametrize(
    ("stage", "gone", "room_kib", "names"),
    [
        ("profile", "latency/*.jsonl", 12, "latency/networks/"),
        # The networks take 292 KiB, the table at least 20.
        ("profile", "latency/*.jsonl", 300, ".jsonl"),
        ("pretrain", "supernet", 40, "model.safetensors"),
        ("pretrain", "supernet", 128, "state.pt"),
        ("search", "search", 4, "images.json"),
        ("search", "search", 8, "trials.jsonl"),
        ("search", "search", 16, "search/"),
    ],
)
def test_full_disk(finished, small_disk, stage, gone, room_kib, names):
    chain = finished[0].copied(small_disk)
    (path,) = chain.output_dir.glob(gone)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert names in full_then_not(chain, small_disk, stage, room_kib << 10)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_full_disk_in_export(finished, small_disk, share):
    chain = finished[0].copied(small_disk)
    folder = chain.output_dir / "engines/w0"
    names = ("subnet.onnx", "subnet.ort", "subnet.safetensors")
    needed = sum((folder / name).stat().st_size for name in names)
    shutil.rmtree(chain.output_dir / "engines")
    room = 4096 + int(share * needed)
    message = full_then_not(chain, small_disk, "export", room, "export.tensorrt=")
    assert str(chain.output_dir) in message
