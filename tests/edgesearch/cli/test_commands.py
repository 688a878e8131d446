"""Where options may stand, and what is said to a wrong call."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgesearch.cli.main import app

ROOT = Path(__file__).parents[3]


def call(*arguments):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("before", [["--json"], ["--json", "-q"], ["-v", "--json"]])
def test_options_may_stand_before_the_command(before, chain):
    where = [str(chain.config), f"output_dir={chain.output_dir}"]
    after = call("profile", *where, *before)
    first = call(*before, "profile", *where)
    assert (first.exit_code, first.stdout) == (0, after.stdout)
    assert json.loads(first.stdout)["skipped"]


def test_an_option_with_a_value_too(tmp_path):
    done = call("--device", "nothing-such", "init", str(tmp_path))
    assert done.exit_code == 2
    assert "a device of the catalog" in done.stderr


@pytest.mark.parametrize(
    "given", [["run", ""], ["init", "", "--share", "0.5"], ["report", ""], ["clean", ""], [""]]
)
def test_an_empty_argument_is_not_the_folder_here(given):
    done = call(*given)
    assert done.exit_code == 2
    assert "found: an empty argument, as of a variable" in done.stderr


def test_a_stop_while_modules_are_loaded_shows_no_traceback():
    program = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'edgesearch.cli.progress':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from edgesearch.cli import main\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (130, b"\nstopped\n")


@pytest.mark.parametrize("asked", [[], ["-h"], ["--help"], ["-h", "keys"]])
def test_help(asked):
    done = call(*asked)
    assert done.exit_code == 0
    assert "Usage: edgesearch [OPTIONS] COMMAND" in done.stdout


def test_help_of_a_command():
    assert "Usage: edgesearch keys" in call("keys", "-h").stdout


@pytest.mark.parametrize(
    ("arguments", "found", "remedy"),
    [
        (["run"], "missing argument 'CONFIG'", "`edgesearch run --help`"),
        (["spaces", "x"], "got unexpected extra argument(s) (x)", "`edgesearch spaces --help`"),
        (["plann", "quickstart"], "plann", "Did you mean plan? `edgesearch --help` lists them."),
        (["xyz"], "xyz", "`edgesearch --help` lists them."),
        (["rank", "x", "--subnet=1"], "--subnet=1", "  `edgesearch rank --help` shows"),
        (["run", "quickstart", "-v", "-q"], "exclude each other", "`edgesearch run --help`"),
        (["plan", "x", "--verbos"], "--verbos", "Did you mean --verbose?"),
        (["-q", "keys"], "-q", "`edgesearch keys --help` shows the options."),
        (["init", "-photos"], "-photos", "begins with a dash is written ./-photos"),
        (["run", "-x.yaml"], "-x.yaml", "begins with a dash is written ./-x.yaml"),
        (["init", ".", "--latency-ms", "five"], "'--latency-ms'", "`edgesearch init --help`"),
    ],
)
def test_a_wrong_call_is_one_message_and_2(arguments, found, remedy):
    done = call(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    required, said, last = done.stderr.splitlines()
    assert required.startswith("error: required: ")
    assert said.startswith("  found: ")
    assert found in said
    assert remedy in last
    assert ("./-" in last) == ("./-" in remedy)


def test_a_wrong_call_as_json():
    done = call("run", "--json")
    fault = json.loads(done.stdout)["error"]
    assert fault["found"] == "missing argument 'CONFIG'"
    assert done.exit_code == 2


def test_what_is_said_about_a_dash_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x.yaml").write_text("seed: nothing\n")
    assert "seed: must be a valid integer" in call("run", "./-x.yaml").stderr


def test_a_current_folder_that_was_removed(tmp_path):
    script = f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -m edgesearch plan x"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["sh", "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-3:] == [
        "error: required: a current folder that exists",
        "  found: No such file or directory",
        "  Change to another: cd ~",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is of Linux")
def test_a_full_standard_output():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "edgesearch", "configs"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: required: a standard output that can be written\n"
        "  found: No space left on device\n  Send it elsewhere.\n"
    )
