"""Files and programs on a board, through a real ssh server on the loopback address."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from devices.errors import DeviceError
from devices.transports import ssh
from devices.transports.ssh import SshTransport, expanding, in_any_shell


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


@pytest.mark.parametrize("shell", ["dash", "tcsh", "fish", "zsh"])
def test_any_login_shell_will_do(board: Any, tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here: apt install {shell}")
    transport = SshTransport(f"{shell}-board", "x", str(board.config))
    try:
        transport.connect()
        (tmp_path / "model.onnx").write_bytes(b"x" * 1000)
        assert Path(transport.put(tmp_path / "model.onnx")).stat().st_size == 1000
        words = ["a b", "$(touch /tmp/never)", "it's!", "*", "a\nb", "\\0141", "é"]
        process = transport.start([sys.executable, "-c", "import sys; print(sys.argv[1:])", *words])
        output, _ = process.communicate(timeout=600)
        assert output.decode().strip() == str(words)
    finally:
        transport.close()
    assert board.left() == []


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("~/bin/x y", "/h/bin/x y"),
        ("$A/x", "/a b/x"),
        ("${A}c/$B/$(echo)", "/a bc/*/$(echo)"),
        ("a~/$", "a~/$"),
        ("it's", "it's"),
    ],
)
def test_names_of_programs_are_expanded_over_there(program: str, printed: str) -> None:
    line = in_any_shell(f"printf %s {expanding(program)}")
    values = {"HOME": "/h", "A": "/a b", "B": "*", "PATH": os.environ["PATH"]}
    said = subprocess.run(
        ["sh", "-c", line], env=values, capture_output=True, text=True, check=True
    )
    assert said.stdout == printed


def test_a_long_folder_for_temporary_files_takes_no_socket(
    board: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    for names, is_shared in ((("/tmp",), True), ((), False)):
        monkeypatch.setattr(ssh, "SOCKET_FOLDERS", names)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        transport = SshTransport("board", "x", str(board.config))
        try:
            transport.connect()
            assert (len(board.connections()) > 0) == is_shared
        finally:
            transport.close()
        assert board.left() == []
        board.settle()
