"""The command report."""

import json
import os

import pytest
from typer.testing import CliRunner

from edgesearch.cli.main import app
from edgesearch.config import load_config


def call(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def refuses(*arguments, says):
    done = call(*arguments)
    assert done.exit_code == 2, done.stderr
    for text in says:
        assert text in done.stderr
    return done.stderr


def test_run_writes_the_page_at_its_end(finished):
    chain, done = finished
    path = chain.output_dir / "report.html"
    assert done.stdout.splitlines()[-1] == f"report: {path}"
    assert b"w0 takes" in path.read_bytes()


def test_run_writes_it_again_only_if_something_is_newer(chain):
    path = chain.output_dir / "report.html"
    before = path.stat().st_mtime_ns
    chain.passes("run")
    assert path.stat().st_mtime_ns == before
    (chain.output_dir / "summary" / "summary.json").touch()
    chain.passes("run")
    assert path.stat().st_mtime_ns > before


def test_a_folder_is_enough_wherever_it_is(chain, tmp_path, monkeypatch):
    (chain.output_dir / "report.html").unlink()
    moved = tmp_path / "moved #1"
    chain.output_dir.rename(moved)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = call(moved, "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["report_path"] == str(moved / "report.html")
    assert result["bytes"] == (moved / "report.html").stat().st_size
    (moved / "report.html").unlink()
    done = call(moved / "config.yaml")
    assert done.exit_code == 0, done.stderr
    assert (moved / "report.html").exists()
    assert not chain.output_dir.exists()


def test_the_kept_configuration_is_that_of_the_run(chain):
    kept = load_config(str(chain.output_dir / "config.yaml"))
    asked = load_config(str(chain.config))
    assert kept.model_copy(update={"output_dir": asked.output_dir}) == asked
    assert kept.output_dir.is_absolute()


def test_paths_of_the_kept_configuration_are_absolute(empty, tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    run = empty.api(data={"source": "folder", "root": "images"}, pretrain={"init": "some-name"})
    run.keep_config()
    kept = load_config(str(empty.output_dir / "config.yaml"))
    assert kept.data.root == tmp_path / "images"
    assert str(kept.pretrain.init) == "some-name", "a name of weights is no path"


def test_a_configuration_with_overrides_is_a_run_too(chain):
    done = call(chain.config, f"output_dir={chain.output_dir}")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"report: {chain.output_dir / 'report.html'}\n"


def test_several_runs_in_the_current_folder(chain, tmp_path, monkeypatch):
    other = chain.copied(tmp_path / "other").output_dir
    (tmp_path / "runs").mkdir()
    chain.output_dir.rename(tmp_path / "runs" / "a")
    other.rename(tmp_path / "runs" / "b")
    monkeypatch.chdir(tmp_path)
    done = call()
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "report: report.html\n"
    assert b"2 runs compared" in (tmp_path / "report.html").read_bytes()


def test_refuses_where_there_is_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuses(says=("a run in", "since none was named", "edgesearch report FOLDER"))
    refuses(tmp_path, says=("config.yaml, which its first stage writes", "no such file"))
    refuses(
        "nowhere", says=("at nowhere\n  found: nothing of that name", "takes all runs in runs/")
    )
    refuses("quickstart", says=("the output of a run in runs/quickstart", "edgesearch run CONFIG"))


def test_overwrites_reports_only(chain, tmp_path):
    mine = tmp_path / "mine.html"
    mine.write_text("<p>a page of the user's</p>")
    refuses(chain.output_dir, "--output", mine, says=("another file", "--output FILE"))
    refuses(chain.output_dir, "--output", tmp_path, says=("a folder",))
    assert mine.read_text() == "<p>a page of the user's</p>"
    assert call(chain.output_dir, "--output", tmp_path / "new.html").exit_code == 0
    assert call(chain.output_dir, "--output", tmp_path / "new.html").exit_code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_says_where_a_folder_cannot_be_written(chain, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    refuses(chain.output_dir, "--output", locked / "a.html", says=("to write",))
