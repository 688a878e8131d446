"""The program that measures on a board, as a process of its own."""

import os
import subprocess
import sys
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


def test_the_agent_ends_with_its_input(start_agent: StartAgent) -> None:
    process = start_agent()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=60) == 0


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
