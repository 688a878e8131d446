"""A board behind a real ssh server, on the loopback address."""

import contextlib
import os
import subprocess
import sys
import time
import venv
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices.errors import (
    ConnectionLostError,
    DeviceError,
    EngineError,
    RuntimeMissingError,
    UnreachableError,
)
from profilers import (
    MeasureConfig,
    Measurement,
    Workload,
    boards_meter,
    build_table,
    open_meter,
    remote_meter,
    usage_of,
)
from profilers.measure import KeyHistory

Exactly = Callable[..., MeasureConfig]


def measured(board: Any, blocks: list[Workload], config: MeasureConfig) -> list[Measurement]:
    with contextlib.closing(open_meter(board.spec())) as meter:
        return list(meter.measure(blocks, (), config, {}))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_board_measures_as_this_machine_does(
    board: Any, blocks: list[Workload], exactly: Exactly, tmp_path: Path
) -> None:
    with contextlib.closing(open_meter(board.spec())) as meter:
        (fingerprint,) = meter.fingerprints
        assert fingerprint.runtime == "onnxruntime"
        path = tmp_path / "table.jsonl"
        table = build_table(
            path, spec=board.spec(), workloads=blocks, meter=meter, config=exactly(rounds=3)
        )
        assert [table.rounds(workload.key) for workload in blocks] == [3, 3, 3]
        assert all(table.median_ms(workload.key) > 0 for workload in blocks)
        assert table.low_quantile_ms("overhead", with_overhead=True) > 0
        assert len(board.left()) == 1
        # Another time with the same connection, as the export does.
        more = build_table(
            path, spec=board.spec(), workloads=blocks, meter=meter, config=exactly(rounds=4)
        )
        assert (more.rounds("block/a"), more.last_session) == (4, 2)
    assert board.left() == []
    wait_until(lambda: not board.agents())


def test_a_model_that_cannot_run_there_is_an_error_of_its_key(
    board: Any, blocks: list[Workload], exactly: Exactly, tmp_path: Path
) -> None:
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk")
    found = measured(board, [*blocks, Workload("block/junk", junk)], exactly(rounds=1))
    (failed,) = [m for m in found if isinstance(m.outcome, EngineError)]
    assert failed.key == "block/junk"
    assert "must be able to load" in str(failed.outcome)
    assert Counter(m.key for m in found)["block/a"] == 1


@pytest.mark.slow
def test_a_cut_connection_is_made_again(
    board: Any,
    blocks: list[Workload],
    exactly: Exactly,
    tmp_path: Path,
    rounds_by_key: Callable[[Path], dict[str, list[tuple[int, int]]]],
) -> None:
    path, rounds = tmp_path / "table.jsonl", 400
    cuts: list[int] = []

    def cut(done: int, total: int) -> None:
        if done in (100, 600):
            cuts.append(done)
            board.cut()

    with contextlib.closing(open_meter(board.spec())) as meter:
        table = build_table(
            path,
            spec=board.spec(),
            workloads=blocks,
            meter=meter,
            config=exactly(rounds=rounds),
            on_progress=cut,
        )
    assert cuts == [100, 600]
    made = rounds_by_key(path)
    assert sorted(made) == [workload.key for workload in blocks]
    assert all(len(set(numbers)) == len(numbers) == rounds for numbers in made.values())
    assert table.last_session == 3
    assert all(table.median_ms(workload.key) > 0 for workload in blocks)
    wait_until(lambda: not board.agents())
    assert board.left() == []


@pytest.mark.slow
def test_an_agent_behind_a_silent_connection_makes_way(
    board: Any, blocks: list[Workload], exactly: Exactly
) -> None:
    with contextlib.closing(remote_meter.RemoteMeter(board.spec(), "board")) as meter:
        (first,) = board.agents()
        measuring = meter.measure(blocks, (), exactly(rounds=100_000), {})
        next(measuring)
        board.silence()
        transport = meter._transport  # its end of the connection is given up
        transport._quietly(["ssh", *transport._options, "-O", "exit", "--", "board"])
        assert first in board.agents()
        assert any(found.session == 1 for found in measuring)
        (second,) = board.agents()
        assert first != second
    assert board.left() == []
    wait_until(lambda: not board.agents())


@pytest.mark.slow
def test_a_board_that_stays_away_is_given_up(
    board: Any, blocks: list[Workload], exactly: Exactly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_meter, "PAUSES_SECONDS", (0.01, 0.01))
    with contextlib.closing(open_meter(board.spec())) as meter:
        measuring = meter.measure(blocks, (), exactly(rounds=100_000), {})
        next(measuring)
        board.stop()
        with pytest.raises(ConnectionLostError, match="connection to board.*Connection refused"):
            list(measuring)
    wait_until(lambda: not board.agents())


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (
            "stranger",
            "permission to log in to stranger; found: .*Permission denied.*"
            "Let `ssh -F .* stranger true` work without a password: ssh-copy-id -F .* stranger",
        ),
        ("closed", "on closed; found: .*Connection refused.*`ssh -F .* closed true` has to work"),
        ("no-such-host.invalid", "the address of no-such-host.invalid; found: .*Could not resolve"),
        ("unknown", "the known host key of unknown; found: Host key verification failed"),
    ],
)
def test_a_board_that_cannot_be_reached_is_named(board: Any, host: str, message: str) -> None:
    with pytest.raises(UnreachableError, match=message):
        open_meter(board.spec(host))


def test_a_configuration_that_is_not_there_is_named(board: Any) -> None:
    spec = board.spec(ssh_config="/nowhere/config")
    with pytest.raises(UnreachableError, match="a readable ssh configuration for board"):
        open_meter(spec)


def test_a_missing_interpreter_is_named(board: Any) -> None:
    with pytest.raises(
        RuntimeMissingError, match="the interpreter '/no/python' on board; .*device.python"
    ):
        open_meter(board.spec(python="/no/python"))


def test_an_interpreter_may_be_named_by_the_home_folder_or_a_variable(board: Any) -> None:
    (board.home / "bin").mkdir()
    interpreter(board.home / "bin", f'exec {sys.executable} "$@"')
    for python in ("~/bin/python", "$HOME/bin/python", "${HOME}/bin/python"):
        with contextlib.closing(open_meter(board.spec(python=python))) as meter:
            assert len(meter.fingerprints) == 1
    message = r"the interpreter '\$VENV/python' on board; found: .*VENV: is not set over there"
    with pytest.raises(RuntimeMissingError, match=message):
        open_meter(board.spec(python="$VENV/python"))


@pytest.mark.parametrize(
    "start_up", ["echo my-documents", "printf my-documents", "trap 'echo my-documents' EXIT"]
)
def test_what_the_shell_prints_as_it_starts_is_no_answer(
    board: Any, blocks: list[Workload], exactly: Exactly, start_up: str
) -> None:
    (board.home / "my-documents").mkdir()
    (board.home / "my-documents" / "thesis.txt").write_text("the only copy")
    board.greet(start_up)
    found = Counter(m.key for m in measured(board, blocks, exactly(rounds=2)))
    assert found["block/a"] == found["block/b"] == found["block/c"] == 2
    assert (board.home / "my-documents" / "thesis.txt").read_text() == "the only copy"
    assert board.left() == []
    wait_until(lambda: not board.agents())


def test_what_the_shell_prints_is_no_usage(board: Any, blocks: list[Workload]) -> None:
    board.greet("echo Welcome; trap 'echo Goodbye' EXIT")
    assert usage_of(board.spec(), blocks[0].onnx_path).memory_bytes is not None
    assert board.left() == []


def interpreter(folder: Path, commands: str) -> str:
    """A script in place of an interpreter."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o755)
    return str(path)


def test_an_interpreter_may_print_before_it_begins(board: Any, tmp_path: Path) -> None:
    python = interpreter(tmp_path, f'echo activated\nexec {sys.executable} "$@"')
    with contextlib.closing(open_meter(board.spec(python=python))) as meter:
        assert len(meter.fingerprints) == 1


@pytest.mark.parametrize("line", ["Low battery", "5"])
def test_lines_between_those_of_the_agent_are_named(board: Any, tmp_path: Path, line: str) -> None:
    python = interpreter(tmp_path, f'echo "$2"\necho {line}')
    message = f"that of edgesearch from board; found: '{line}'. .*bashrc.*`ssh board echo yes`"
    with pytest.raises(DeviceError, match=message):
        open_meter(board.spec(python=python))
    assert board.left() == []


def test_an_interpreter_that_cannot_be_run_is_named(board: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissingError, match="the interpreter .* on board; .*device.python"):
        open_meter(board.spec(python=str(tmp_path)))


def test_something_else_that_is_not_found_is_no_missing_interpreter(
    board: Any, tmp_path: Path
) -> None:
    python = interpreter(tmp_path, "echo KeyError: it was not found >&2\nexit 1")
    with pytest.raises(DeviceError, match="a successful command .* status 1: KeyError: it was not"):
        open_meter(board.spec(python=python))


def test_a_numpy_that_does_not_fit_is_named(board: Any, tmp_path: Path) -> None:
    lost = "/lib/libc.so.6: version `GLIBC_2.99' not found (required by core.so)"
    (tmp_path / "numpy.py").write_text(f'raise ImportError("PLEASE READ THIS\\n\\n{lost}\\n")')
    python = interpreter(tmp_path, f'export PYTHONPATH={tmp_path}\nexec {sys.executable} "$@"')
    message = "Python 3.10 with numpy on board; found: .*GLIBC_2.99' not found.*pip install numpy"
    with pytest.raises(RuntimeMissingError, match=message):
        open_meter(board.spec(python=python))


def test_a_board_of_another_architecture_is_named(board: Any) -> None:
    with pytest.raises(
        DeviceError, match="on board: a machine of architecture riscv64 for .*found"
    ):
        open_meter(board.spec(machine="riscv64"))


def test_missing_packages_are_named(board: Any, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    bare = str(tmp_path / "bare" / "bin" / "python")
    with pytest.raises(RuntimeMissingError, match="Python 3.10 with numpy on board.*pip install"):
        open_meter(board.spec(python=bare))


@pytest.mark.slow
def test_a_missing_runtime_is_named(board: Any, tmp_path: Path) -> None:
    # An interpreter with numpy and nothing else.
    import numpy

    venv.create(tmp_path / "bare", symlinks=True)
    (packages,) = (tmp_path / "bare" / "lib").glob("python*/site-packages")
    for folder in Path(numpy.__file__).parents[1].glob("numpy*"):
        (packages / folder.name).symlink_to(folder)
    bare = str(tmp_path / "bare" / "bin" / "python")
    with pytest.raises(RuntimeMissingError, match="on board: the package onnxruntime.*pip install"):
        open_meter(board.spec(python=bare))


@pytest.mark.slow
def test_a_full_disk_over_there_is_named(board: Any, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(board.tmp)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        with pytest.raises(DeviceError, match="free space on board .*; found: .*No space left"):
            open_meter(board.spec())
    finally:
        subprocess.run(["umount", str(board.tmp)], check=True)


def test_boards_of_one_kind_share_the_work(
    board: Any,
    blocks: list[Workload],
    write_block: Callable[[str], Path],
    exactly: Exactly,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(boards_meter, "REFERENCE_TOLERANCE", 1e9)  # they disturb each other here
    spec = board.spec("board", "twin")
    network = Workload("network/x", write_block("x"), "network", {"depths": [1]})
    with contextlib.closing(open_meter(spec)) as meter:
        table = build_table(
            tmp_path / "table.jsonl",
            spec=spec,
            workloads=[*blocks, network],
            meter=meter,
            config=exactly(rounds=3),
        )
    assert [table.rounds(w.key) for w in [*blocks, network]] == [3, 3, 3, 3]
    assert table.last_session == 2
    sessions = {key: {r.session for r in table._records[key]} for key in table._records}
    anchored = {record.session for record in table._anchors["network/x"]}
    assert sessions["reference"] == sessions["network/x"] | anchored == {1, 2}
    assert len(sessions["block/a"]) == len(sessions["block/b"]) == 1
    assert sessions["block/a"] != sessions["block/b"]
    assert board.left() == []


@pytest.mark.slow
def test_boards_of_different_kinds_are_refused(board: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = board.spec("board", "twin")
    monkeypatch.setattr(boards_meter, "REFERENCE_TOLERANCE", -1.0)
    with pytest.raises(DeviceError, match="reference latency within .* ms on board, .* ms on twin"):
        open_meter(spec)
    monkeypatch.undo()
    connect = remote_meter.RemoteMeter._connect

    def other_chip(self: remote_meter.RemoteMeter) -> None:
        connect(self)
        if self.host == "twin":
            self.fingerprints[-1] = replace(self.fingerprints[-1], chip="another")

    monkeypatch.setattr(remote_meter.RemoteMeter, "_connect", other_chip)
    with pytest.raises(DeviceError, match="boards of one kind: chip .* on board; found: 'another'"):
        open_meter(spec)
    assert board.left() == []


def test_unused_history_is_sent_as_it_is(board: Any, blocks: list[Workload]) -> None:
    config = MeasureConfig(rounds=3, interval=1e9, tolerance=1e9)
    history = {"block/a": KeyHistory((1.0, 1.0), 2), "block/b": KeyHistory((1.0,) * 3, 3)}
    with contextlib.closing(open_meter(board.spec())) as meter:
        found = Counter(m.key for m in meter.measure(blocks, (), config, history))
    assert (found["block/a"], found["block/b"], found["block/c"]) == (1, 0, 3)
