"""Nothing that is printed ends a command: consoles, pipes, closed streams, full disks."""

import json
import os
import subprocess
import sys

import pytest

from edgesearch.cli.console import visible

PRINTS = """
import os, sys, time
from edgesearch.cli.console import prepare_streams
prepare_streams()
{}
print(sys.argv[1:], file=open(os.environ["DONE"], "a"))
"""


@pytest.fixture
def shell(tmp_path):
    """Run a program after `prepare_streams` in a shell's line, in which it is called PROGRAM."""

    def run(program, line="PROGRAM", **environment):
        done = tmp_path / "done"
        (tmp_path / "program.py").write_text(PRINTS.format(program), "utf-8")
        line = line.replace("PROGRAM", f"{sys.executable} {tmp_path}/program.py")
        environment = {**os.environ, **environment, "DONE": str(done), "PYTHONSAFEPATH": ""}
        ran = subprocess.run(
            ["bash", "-c", line], capture_output=True, env=environment, check=False, timeout=60
        )
        assert ran.returncode == 0, ran.stderr
        assert done.is_file(), "the program did not reach its end"
        return ran

    return run


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_characters_that_a_console_lacks(shell, environment):
    ran = shell("for s in sys.stdout, sys.stderr: print('1–2 × ≤ τ 字 ü', file=s)", **environment)
    assert ran.stdout == ran.stderr == b"1-2 x <= tau ? ?\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_a_file_name_is_printed_byte_by_byte(shell, encoding):
    ran = shell(r"print('a\udcfc\udcff')", PYTHONIOENCODING=encoding)
    assert ran.stdout == b"a\xfc\xff\n"


def test_a_reader_that_leaves(shell):
    ran = shell("for n in range(99999): print(n, flush=True)", "PROGRAM | head -1")
    assert (ran.stdout, ran.stderr) == (b"0\n", b"")
    ran = shell(
        "for n in range(99999): print(n, file=sys.stderr)", "PROGRAM 2>&1 >/dev/null | head -1"
    )
    assert ran.stdout == b"0\n"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_closed_stream_is_no_place_for_files_or_messages(shell, closed):
    """Without standard error, Python prints messages on standard output."""
    ran = shell(
        "assert open(os.devnull).fileno() > 2\nprint('out')\nprint('err', file=sys.stderr)",
        f"PROGRAM {closed}",
    )
    assert ran.stdout == (b"" if "1>" in closed else b"out\n")
    assert ran.stderr == (b"" if "2>" in closed else b"err\n")


def test_a_full_disk_is_told_where_a_result_is_lost(shell):
    shell("for n in range(9999): print(n, file=sys.stderr)", "PROGRAM 2> /dev/full")
    program = "try: print('lost', flush=True)\nexcept OSError as e: print(e, file=sys.stderr)"
    ran = shell(program, "PROGRAM > /dev/full")
    assert ran.stderr == b"[Errno 28] No space left on device: 'standard output'\n"


def test_a_stream_that_another_process_made_non_blocking(shell):
    program = "os.set_blocking(1, False)\nfor n in range(99999): print(n)"
    ran = shell(program, "PROGRAM | (sleep 0.5; tail -1)")
    assert ran.stdout == b"99998\n"


def test_control_characters_are_escaped():
    assert visible("a\x1b[2J\r\x9b\u202e ü\n\t\udcff[/b]") == (
        "a\\x1b[2J\\r\\x9b\\u202e ü\n\t\udcff[/b]"
    )


def test_a_result_that_nobody_reads(tmp_path):
    """The exit code says that the work is done; on a full disk, that its result is lost."""
    command = f"{sys.executable} -m edgesearch devices show raspberry-pi-5"
    line = f"{command} | true; echo ${{PIPESTATUS[0]}}; {command} --json > /dev/full; echo $?"
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert ran.stdout == "0\n2\n"
    assert ran.stderr.startswith("error: required: a standard output that can be written\n")
    for what in ("--help", "--version", "run --help"):
        line = f"{sys.executable} -m edgesearch {what} > /dev/full"
        ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert ran.returncode == 2
        assert ran.stderr.startswith("error: required: a standard output that can be written\n")
        assert ran.stderr.count("\n") == 3
    line = f"{command} --json 2>&-"
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["devices"][0]["name"] == "raspberry-pi-5"
