"""Files and programs on a board, through a real ssh server on the loopback address."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from devices.errors import DeviceError
from devices.transports.ssh import SshTransport


def test_arguments_reach_the_program_as_they_are(board: Any) -> None:
    transport = SshTransport("board", "x", str(board.config))
    try:
        transport.connect()
        words = ["a b", "$(touch /tmp/never)", "'", "*", ";", "-n"]
        process = transport.start([sys.executable, "-c", "import sys; print(sys.argv[1:])", *words])
        output, _ = process.communicate(timeout=600)
        assert output.decode().strip() == str(words)
    finally:
        transport.close()


def test_a_file_is_sent_once(board: Any, tmp_path: Path) -> None:
    transport = SshTransport("board", "x", str(board.config))
    try:
        transport.connect()
        (tmp_path / "model.onnx").write_bytes(b"x" * 300_000)
        there = Path(transport.put(tmp_path / "model.onnx"))
        assert there.read_bytes() == b"x" * 300_000
        there.write_bytes(b"not again")
        assert transport.put(tmp_path / "model.onnx") == str(there)
        assert there.read_bytes() == b"not again"
        # Known to those who come later, too.
        transport.connect()
        transport.put(tmp_path / "model.onnx")
        assert there.read_bytes() == b"not again"
    finally:
        transport.close()


@pytest.mark.parametrize(
    ("start_up", "found"),
    [("echo; echo my-documents; exit", "'my-documents'"), ("exit", "nothing")],
)
def test_a_shell_that_runs_no_command_is_named(board: Any, start_up: str, found: str) -> None:
    (board.home / "my-documents").mkdir()
    board.greet(start_up)
    transport = SshTransport("board", "x", str(board.config))
    try:
        message = f"that of edgesearch from board; found: {found}. Let the shell's start-up"
        with pytest.raises(DeviceError, match=message):
            transport.connect()
    finally:
        transport.close()
    assert (board.home / "my-documents").is_dir()


def test_only_the_own_folder_is_taken_for_it(board: Any) -> None:
    # A temporary folder with a line break in its name: the answer names another one.
    board.greet(f"export TMPDIR='{board.tmp}/a\nb'; mkdir -p \"$TMPDIR\" {board.tmp}/a")
    transport = SshTransport("board", "x", str(board.config))
    try:
        with pytest.raises(DeviceError, match=f"found: '{board.tmp}/a'"):
            transport.connect()
        assert transport.folder == ""
    finally:
        transport.close()
    assert (board.tmp / "a").is_dir()


@pytest.mark.parametrize("name", ["my-documents", "edgesearch-{uid}-x", "{home}/my-documents"])
def test_only_the_own_folder_is_removed(board: Any, name: str) -> None:
    name = name.format(uid=os.geteuid(), home=board.home)
    board.greet("")  # commands run in the home folder
    (board.home / name).mkdir()
    transport = SshTransport("board", "x", str(board.config))
    transport.folder = name
    transport.close()
    assert (board.home / name).is_dir()
