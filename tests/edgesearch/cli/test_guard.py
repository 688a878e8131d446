import errno
import json

import pytest
import typer

from edgesearch.cli.guard import guarded
from edgesearch.errors import DataError, Interrupted


def code_of(error, as_json=False):
    def work():
        raise error

    with pytest.raises(typer.Exit) as caught:
        guarded(work, as_json)
    return caught.value.exit_code


def test_gives_back_what_the_work_gives():
    assert guarded(lambda: 7, False) == 7


def test_what_the_user_can_mend_is_one_message_and_2(capsys):
    assert code_of(DataError("a folder", "a file", "Correct it.")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: required: a folder\n  found: a file\n  Correct it.\n"


def test_as_json_the_message_is_the_only_output(capsys):
    assert code_of(DataError("a folder", "a file", "Correct it."), as_json=True) == 2
    expected = {"required": "a folder", "found": "a file", "remedy": "Correct it."}
    assert json.loads(capsys.readouterr().out) == {"error": expected}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_closed_place_is_the_users(number, capsys):
    assert code_of(OSError(number, "reason", "place")) == 2
    assert "can be written to place\n  found: reason" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("broken"), OSError(errno.EBADF, "broken")])
def test_our_own_faults_are_1_with_a_trace(error, capsys):
    assert code_of(error) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "broken" in err
    assert "fault of edgesearch" in err


@pytest.mark.parametrize("error", [Interrupted("stopped in epoch 2"), KeyboardInterrupt()])
def test_stopped_is_130_and_says_how_to_go_on(error, capsys):
    assert code_of(error) == 130
    assert "Run the same command again to go on." in capsys.readouterr().err
