import errno
import hashlib
import json
import os
import signal
import threading
import warnings

import numpy as np
import pytest
import torch
import typer

from edgesearch.cli.guard import check_processes, guarded
from edgesearch.cli.progress import Verbosity
from edgesearch.errors import (
    ConfigError,
    DataError,
    Interrupted,
    ProcessesError,
    ProcessFailed,
    ProcessStopped,
    StageError,
    UserError,
    UserNotice,
)


def code_of(error, as_json=False):
    def work():
        raise error

    with pytest.raises(typer.Exit) as caught:
        guarded(work, as_json)
    return caught.value.exit_code


def test_gives_back_what_the_work_gives():
    assert guarded(lambda: 7, False) == 7


def test_a_notice_is_one_line_wherever_it_comes_from(capsys):
    def work():
        for text in ("a line is torn", "a line is torn", "another one"):
            warnings.warn(text, UserNotice, stacklevel=1)
        warnings.warn("a line is torn", UserNotice, stacklevel=2)
        return 7

    assert guarded(work, True) == 7
    assert capsys.readouterr() == ("", "note: a line is torn\nnote: another one\n")


def test_what_libraries_warn_of_is_for_those_who_want_to_know_all(capsys):
    def work():
        warnings.warn("old", FutureWarning, stacklevel=1)

    guarded(work, False)
    assert capsys.readouterr() == ("", "")
    guarded(work, False, Verbosity.VERBOSE)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("FutureWarning of a library (") and err.endswith("): old\n")


def test_a_notice_is_not_for_scripts(capsys):
    guarded(lambda: warnings.warn("torn", UserNotice, stacklevel=1), False, Verbosity.QUIET)
    assert capsys.readouterr() == ("", "")


def test_a_signal_is_acknowledged_while_a_library_is_at_work(capfd):
    def work():
        kill = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        kill.start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 4_000_000)  # more than a second, in C

    with pytest.raises(typer.Exit) as caught:
        guarded(work, False)
    assert caught.value.exit_code == 130
    told = capfd.readouterr().err
    assert told.index("SIGINT received: stopping") < told.index("Run the same command again")


def test_a_stop_at_once_is_told_once(capfd):
    def work():
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(typer.Exit):
        guarded(work, False)
    assert "received" not in capfd.readouterr().err


def test_of_several_processes_one_gives_notice(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    guarded(lambda: warnings.warn("torn", UserNotice, stacklevel=1), False)
    assert capsys.readouterr() == ("", "")


def test_what_the_user_can_mend_is_one_message_and_2(capsys):
    assert code_of(DataError("a folder", "a file", "Correct it.")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: required: a folder\n  found: a file\n  Correct it.\n"


def test_as_json_the_message_is_the_only_output(capsys):
    assert code_of(DataError("a folder", "a file", "Correct it."), as_json=True) == 2
    expected = {"required": "a folder", "found": "a file", "remedy": "Correct it."}
    assert json.loads(capsys.readouterr().out) == {"error": expected}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_is_the_users(number, capsys):
    assert code_of(OSError(number, "reason", "place")) == 2
    told = capsys.readouterr().err
    assert "that can be written at place\n  found: reason" in told
    assert "choose another output_dir" in told


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_lack_of_permission_is_told_as_such(number, capsys):
    assert code_of(OSError(number, "reason", "place")) == 2
    told = capsys.readouterr().err
    assert "required: permission to read and write place\n  found: reason\n  Get it" in told
    assert "output_dir" not in told  # it may be a file that was to be read


def allocates(kind):
    """Ask for more memory than any machine has."""
    count = 1 << 50
    if kind == "python":
        bytearray(count)
    return {"numpy": np.zeros, "torch": torch.zeros}[kind](count)


@pytest.mark.parametrize(
    ("kind", "found"), [("python", "an allocation"), ("numpy", "8.00 PiB"), ("torch", "MiB more")]
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_lack_of_memory_is_one_message_and_2(capsys, kind, found, wrapped):
    def work():
        try:
            allocates(kind)
        except (MemoryError, RuntimeError) as error:
            if not wrapped:
                raise
            raise DataError("weights", "a damaged file", "Load it again.") from error

    with pytest.raises(typer.Exit) as caught:
        guarded(work, True)
    assert caught.value.exit_code == 2
    out, err = capsys.readouterr()
    assert err.count("error: required: enough memory for this command; ") == 1
    assert "Traceback" not in err and "damaged" not in err
    error = json.loads(out)["error"]
    assert found in error["found"]
    assert "smaller batch_size" in error["remedy"]


def test_what_fails_while_a_lack_of_memory_is_handled(capsys):
    def work():
        try:
            allocates("python")
        except MemoryError:
            raise SystemError("a call returned NULL")  # noqa: B904 as libraries do

    with pytest.raises(typer.Exit) as caught:
        guarded(work, False)
    assert caught.value.exit_code == 2
    assert "required: enough memory for this command" in capsys.readouterr().err


def test_errors_that_are_each_others_cause_end(capsys):
    first, second = UserError("a folder", "a file", "Correct it."), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert code_of(first) == 2
    assert "required: a folder" in capsys.readouterr().err


def test_what_a_gpu_lacks_is_told_by_who_knows_more(capsys):
    lacking = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    error = UserError("memory on the device", "none", "Set a smaller batch.")
    error.__cause__ = lacking
    assert code_of(error) == 2
    assert "required: memory on the device" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("broken"), OSError(errno.EBADF, "broken")])
def test_our_own_faults_are_1_with_a_trace(error, capsys):
    assert code_of(error) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "broken" in err
    assert "bug in edgesearch" in err


@pytest.mark.parametrize("error", [Interrupted("stopped in epoch 2"), KeyboardInterrupt()])
def test_stopped_is_130_and_says_how_to_go_on(error, capsys):
    assert code_of(error) == 130
    assert "Run the same command again to continue." in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("error", [ImportError("broken"), DataError("a", "b", "c")])
def test_an_interrupt_that_a_library_made_an_error_of_its_own_is_130(number, error, capsys):
    def library():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise error from None

    with pytest.raises(typer.Exit) as caught:
        guarded(library, False)
    assert caught.value.exit_code == 130
    assert "Run the same command again to continue." in capsys.readouterr().err


class TestSeveralProcesses:
    """Under torchrun one process speaks, and the others leave after it."""

    @pytest.fixture
    def waits(self, monkeypatch):
        waits = []
        monkeypatch.setattr("edgesearch.cli.guard.time.sleep", waits.append)
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        return waits

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ProcessFailed("another"), 2),
            (ConfigError("a key", "none", "Give it."), 2),
            (ProcessStopped("stopped"), 130),
            (KeyboardInterrupt(), 130),
        ],
    )
    def test_what_another_says_is_not_said_twice(self, waits, capsys, error, code):
        assert code_of(error) == code
        assert capsys.readouterr() == ("", "")
        assert len(waits) == 1

    @pytest.mark.parametrize("kind", [DataError, StageError])
    def test_a_fault_of_its_own_is_said(self, waits, capsys, kind):
        assert code_of(kind("a folder", "a file", "Correct it.")) == 2
        assert "found: a file" in capsys.readouterr().err
        assert waits == []

    def test_a_stop_of_its_own_is_said(self, waits, capsys):
        assert code_of(Interrupted("search stopped")) == 130
        assert capsys.readouterr().err.count("search stopped. Run the same command again") == 1
        assert waits == []

    def test_a_failure_of_another_that_came_with_a_signal_is_no_stop(self, waits, capsys):
        """torchrun ends all processes with SIGTERM as soon as one has failed."""

        def work():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt:
                raise ProcessFailed("another") from None

        with pytest.raises(typer.Exit) as caught:
            guarded(work, False)
        assert caught.value.exit_code == 2
        assert capsys.readouterr() == ("", "")

    def test_the_first_is_silent_if_another_has_failed(self, waits, monkeypatch, capsys):
        monkeypatch.setenv("RANK", "0")
        assert code_of(ProcessFailed("another")) == 2
        assert capsys.readouterr() == ("", "")
        assert code_of(ConfigError("a key", "none", "Give it.")) == 2
        assert "required: a key" in capsys.readouterr().err

    @pytest.mark.parametrize("command", ["pretrain", "search", "rank"])
    def test_what_several_do_together(self, waits, command):
        check_processes(command)

    def test_other_commands_are_refused_by_the_first(self, waits, monkeypatch):
        with pytest.raises(ProcessFailed, match="the first process reports why"):
            check_processes("run")
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(StageError, match="one process for `edgesearch run`; found: 2. Run pre"):
            check_processes("run")


def test_the_end_of_another_process_is_told_though_this_one_is_stopped_for_it(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")

    def work():
        try:
            raise ProcessesError("all 2 processes", "one that has ended", "Run it again.")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # as torchrun does
            signal.pause()

    with pytest.raises(typer.Exit) as end:
        guarded(work, False)
    assert end.value.exit_code == 2
    assert capsys.readouterr().err.count("error: required: all 2 processes") == 1


def test_the_stop_of_another_process_is_told_by_that_one_alone(capsys, monkeypatch):
    monkeypatch.setattr("edgesearch.cli.guard.EXIT_DELAY_S", 0.0)
    monkeypatch.setenv("WORLD_SIZE", "2")

    def work():
        try:
            raise ProcessesError("all 2 processes", "one that has ended", "Run it again.")
        except ProcessesError as error:
            raise ProcessStopped(str(error)) from error

    with pytest.raises(typer.Exit) as end:
        guarded(work, False)
    assert end.value.exit_code == 130
    assert capsys.readouterr().err == ""
