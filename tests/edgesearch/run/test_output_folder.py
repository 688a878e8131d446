"""One writer, and a place that can be written to."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgesearch.errors import StageError
from edgesearch.run.output_folder import output_folder, read_json, write_json

ROOT = Path(__file__).parents[3]


@pytest.fixture
def mounted(tmp_path):
    """Mount a small file system in memory; skips where that is not permitted."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(*options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_makes_the_folder_with_those_above(tmp_path):
    with output_folder(tmp_path / "a" / "b") as folder:
        assert folder.is_dir()
    with output_folder(tmp_path / "a" / "b"):
        pass


@pytest.mark.parametrize(("place", "reason"), [("file", "File exists"), ("file/a", "Not a dir")])
def test_a_file_in_the_way(tmp_path, place, reason):
    (tmp_path / "file").touch()
    message = f"can be written to at {tmp_path / place}; found: {reason}.*output_dir=PATH"
    with pytest.raises(StageError, match=message), output_folder(tmp_path / place):
        pass


def test_a_folder_that_may_only_be_read(mounted):
    folder = mounted("ro")
    message = f"can be written to at {folder}; found: Read-only file system"
    with pytest.raises(StageError, match=message), output_folder(folder):
        pass


def test_the_lock_is_given_back(tmp_path):
    with pytest.raises(ZeroDivisionError), output_folder(tmp_path):
        _ = 1 / 0
    with output_folder(tmp_path):
        pass


HOLD = """
import sys
from pathlib import Path
from edgesearch.run.output_folder import output_folder
with output_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks on Windows")
def test_another_process_is_kept_out(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        message = f"the only process that writes to {tmp_path}; found: another one"
        with pytest.raises(StageError, match=message), output_folder(tmp_path):
            pass
    finally:
        holder.communicate("\n")
    assert holder.returncode == 0
    with output_folder(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_forked_process_that_lives_on_keeps_nobody_out(tmp_path):
    """As one that loads images does for seconds after the main process was killed."""
    with output_folder(tmp_path):
        fork = multiprocessing.get_context("fork")
        begun = fork.Event()
        loader = fork.Process(target=lambda: (begun.set(), time.sleep(60)))
        loader.start()
        assert begun.wait(60)
        with pytest.raises(StageError, match="found: another one"), output_folder(tmp_path):
            pass
    try:
        with output_folder(tmp_path):
            assert loader.is_alive()
    finally:
        loader.kill()
        loader.join()


def test_json_round_trip(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": [1, 2.5, None]})
    assert read_json(path, "search") == {"a": [1, 2.5, None]}
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_a_full_disk_keeps_the_former_file(mounted):
    folder = mounted("size=64k")
    path = folder / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(StageError, match=f"room to write {path}; found: No space left on device"):
        write_json(path, {"a": "x" * 100_000})
    assert json.loads(path.read_text("utf-8")) == {"a": 1}


def test_no_room_for_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StageError, match="room to write .*; found: "):
        write_json(tmp_path / "file" / "a.json", {})


def test_a_missing_file_names_the_command_that_writes_it(tmp_path):
    message = "a.json, which `edgesearch search` writes; found: no such file. Run `edgesearch sea"
    with pytest.raises(StageError, match=message):
        read_json(tmp_path / "a.json", "search")


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(StageError, match="a.json, which .* writes; found: Expecting property"):
        read_json(tmp_path / "a.json", "search")
