"""Processes that are to find each other: what they say, and how they end."""

import os
import signal
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
import torch.distributed

from edgesearch.errors import ProcessesError
from edgesearch.processes import distributed

STOPS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def started(monkeypatch):
    """Set the variables of a process; those that are not named are not there."""

    def started(**given):
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, str(value))

    return started


def join(**options):
    with distributed.processes(**options):
        pytest.fail("it joined")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"WORLD_SIZE": 4, "RANK": 7}, "RANK from 0 to 3 for 4 processes .*; found: RANK 7. Start"),
        ({"WORLD_SIZE": 2, "RANK": -1}, "RANK from 0 to 1 for 2 processes .*; found: RANK -1. St"),
        ({"WORLD_SIZE": 2}, "a number in the variable RANK; found: none. Start them all"),
        ({"WORLD_SIZE": 2, "RANK": "a"}, "a number in the variable RANK; found: 'a'. Start them"),
        ({"WORLD_SIZE": "two"}, "a number in the variable WORLD_SIZE; found: 'two'."),
        (
            {"WORLD_SIZE": 2, "RANK": 0},
            r"2 processes \(WORLD_SIZE\) that find each other at \?:\?; found: .*MASTER_ADDR",
        ),
    ],
)
def test_variables_that_do_not_fit(started, given, message):
    started(**given)
    with pytest.raises(ProcessesError, match=message):
        join()


@pytest.mark.parametrize(("local", "told"), [(0, 1), (1, 0)])
def test_who_is_waited_for_and_who_did_not_come(started, monkeypatch, local, told):
    started(WORLD_SIZE=3, RANK=local, LOCAL_RANK=local, MASTER_ADDR="head", MASTER_PORT=29500)
    said = []

    def late(backend, timeout):
        assert [signal.getsignal(number) for number in STOPS] == [signal.SIG_DFL] * 2
        assert said == ["waiting for 3 processes at head:29500"] * told
        assert timeout == timedelta(hours=1)
        raise torch.distributed.DistStoreError("Timed out waiting for clients. 1/3 joined\nmore")

    monkeypatch.setattr(torch.distributed, "init_process_group", late)
    message = (
        r"3 processes \(WORLD_SIZE\) that find each other at head:29500; found: Timed out waiting "
        "for clients. 1/3 joined. Start them all, .* unset WORLD_SIZE"
    )
    former = [signal.getsignal(number) for number in STOPS]
    with pytest.raises(ProcessesError, match=message):
        join(timeout=timedelta(hours=1), notice=said.append)
    assert [signal.getsignal(number) for number in STOPS] == former


def test_sigterm_ends_a_process_that_waits(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    given = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "edgesearch", "pretrain", "quickstart"]
    waiting = subprocess.Popen(
        [*command, f"output_dir={tmp_path}"],
        env={**os.environ, **given},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in waiting.stderr:
            if f"pretrain: waiting for 2 processes at localhost:{port}" in line:
                break
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(120) == -signal.SIGTERM
    finally:
        waiting.kill()
        waiting.communicate()
    assert not list(tmp_path.iterdir())
