"""One writer at a time."""

import errno
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devices.errors import FileError, UserNotice
from devices.locks import locked

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from devices.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")


def test_the_folder_is_made_and_the_lock_given_back(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / ".lock"
    with pytest.raises(ZeroDivisionError), locked(path):
        _ = 1 / 0
    with locked(path):
        assert path.exists()


@pytest.mark.parametrize(
    ("place", "why"),
    [("file", "file is a file"), ("file/a", "file is a file"), ("link/a", "is a link to nowhere")],
)
def test_a_file_in_the_way(tmp_path: Path, place: str, why: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    message = f"a writable folder at {tmp_path / place}; found: .*{why}.*output_dir=PATH"
    folder = tmp_path / place
    with pytest.raises(FileError, match=message), locked(folder / ".lock", protects=folder):
        pass


def test_another_process_is_kept_out_or_waits(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(path)]
    holder = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = f"the only process that writes to {tmp_path}; found: another process"
        with pytest.raises(FileError, match=message), locked(path, protects=tmp_path):
            pass
    finally:
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
    with locked(path, wait=True):
        pass
    holder.communicate()
    assert holder.returncode == 0


def test_a_forked_process_that_lives_on_keeps_nobody_out(tmp_path: Path) -> None:
    """As one that loads images does for seconds after the main process was killed."""
    path = tmp_path / "lock"
    with locked(path):
        fork = multiprocessing.get_context("fork")
        begun = fork.Event()
        loader = fork.Process(target=lambda: (begun.set(), time.sleep(60)))
        loader.start()
        assert begun.wait(60)
        with pytest.raises(FileError, match="found: another process"), locked(path):
            pass
    try:
        with locked(path):
            assert loader.is_alive()
    finally:
        loader.kill()
        loader.join()
    assert os.path.exists(path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    message = f"{tmp_path}: its file system has no file locks .{os.strerror(number)}.*one at a time"
    done = False
    with pytest.warns(UserNotice, match=message), locked(tmp_path / ".lock", protects=tmp_path):
        done = True
    assert done


def test_a_lock_that_fails_otherwise_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", refuse)
    message = "to lock .*; found: Input/output error"
    with pytest.raises(FileError, match=message), locked(tmp_path / ".lock"):
        pass
