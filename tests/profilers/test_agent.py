"""The program that measures on a board, as a process of its own."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices.cache_dir import default_cache_dir
from devices.errors import CompileError, EngineError
from profilers import Measurement, agent
from profilers.agent_archive import write_agent
from profilers.measure import RoundSamples

StartAgent = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a connection makes on a board: the archive, and which connection is the newest."""
    made = tmp_path / "there"
    made.mkdir()
    write_agent(made / "agent.pyz")
    (made / "connection").write_text("first")
    return made


@pytest.fixture
def start_agent(folder: Path) -> Iterator[StartAgent]:
    """Starts an agent of the first connection."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, str(folder / "agent.pyz"), "first"]
        pipe, environment = subprocess.PIPE, {"PATH": os.environ["PATH"]}
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment))
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


def request(process: subprocess.Popen[bytes], runtime: str) -> None:
    """Ask for a runtime that does not exist: the answer repeats its name."""
    assert process.stdin is not None
    asked = {"spec": {"name": "board", "runtime": runtime}, "own_models": {}}
    process.stdin.write(json.dumps(asked).encode() + b"\n")
    process.stdin.flush()


def test_the_agent_ends_with_its_input(start_agent: StartAgent) -> None:
    process = start_agent()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=600) == 0


def newer(folder: Path) -> None:
    (folder / "connection").write_text("second")


@pytest.mark.parametrize("change", [newer, shutil.rmtree])
def test_the_agent_ends_though_its_input_stays_open(
    start_agent: StartAgent, folder: Path, change: Callable[[Path], None]
) -> None:
    process = start_agent()
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == [b"\n", b"first\n"]
    # More than a pipe holds, and nobody reads it: writing does not return.
    request(process, "x" * (4 << 20))
    assert process.stdout.read(1) == b"{"
    assert process.poll() is None
    change(folder)
    assert process.wait(timeout=600) == 0


def test_an_agent_waits_for_the_one_before_it(start_agent: StartAgent, folder: Path) -> None:
    if not Path("/proc/locks").exists():
        pytest.skip("no /proc/locks, which tells who waits")
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    process = start_agent()
    request(process, "none")
    deadline = time.monotonic() + 600
    while not any("->" in line and f" {process.pid} " in line for line in waiting()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.close(lock)
    assert process.stdout is not None
    assert b"fault" in process.stdout.read()


def waiting() -> list[str]:
    return Path("/proc/locks").read_text("utf-8").splitlines()


def test_engines_built_on_a_board_go_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGESEARCH_CACHE", raising=False)
    agent.cache_beside(tmp_path / "agent.pyz")
    assert default_cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("EDGESEARCH_CACHE", "/kept")
    agent.cache_beside(tmp_path / "agent.pyz")
    assert default_cache_dir() == Path("/kept")


def test_the_same_sources_give_the_same_archive(tmp_path: Path) -> None:
    write_agent(tmp_path / "a.pyz")
    write_agent(tmp_path / "b.pyz")
    assert (tmp_path / "a.pyz").read_bytes() == (tmp_path / "b.pyz").read_bytes()


def test_what_crosses_the_wire_comes_back_as_it_was() -> None:
    samples = Measurement(3, "a", RoundSamples(2.0, (1.0, 1.5)), 1)
    assert agent.decode_measurement(agent.encode_measurement(samples), 1) == samples
    failure = Measurement(3, "a", EngineError("this", "that", "Do."))
    back = agent.decode_measurement(agent.encode_measurement(failure), 0)
    assert str(back.outcome) == "this; found: that. Do."
    error = agent.decode_error(agent.encode_error(CompileError("this", "that", "Do.")), "pi")
    assert isinstance(error, CompileError)
    assert str(error) == "on pi: this; found: that. Do."
