"""`edgesearch clean`: what is listed, what is removed, and what never is."""

import json
import shutil

from typer.testing import CliRunner

from edgesearch.cli.main import app
from edgesearch.stages.clean import clean


def call(*arguments):
    return CliRunner().invoke(app, ["clean", *map(str, arguments)])


def aside(chain, name="search.1"):
    """A former search with other settings, as a stage leaves it, and a former table."""
    former = chain.output_dir / name
    shutil.copytree(chain.output_dir / "search", former)
    record = json.loads((former / "stage.json").read_text())
    record["settings"]["search.evaluations"] = 77
    (former / "stage.json").write_text(json.dumps(record))
    (table,) = (chain.output_dir / "latency").glob("*.jsonl")
    shutil.copy(table, table.with_name(f"{table.name}.1"))
    (chain.output_dir / "search.notes").mkdir()
    return former, table.with_name(f"{table.name}.1")


def files(chain):
    return {path for path in chain.output_dir.rglob("*") if path.name != ".lock"}


def test_what_was_set_aside_says_what_it_is_and_is_removed_on_request_only(chain):
    before = files(chain)
    former, table = aside(chain)
    kept = files(chain)
    done = call(chain.output_dir)
    assert done.exit_code == 0, done.stderr
    assert "search.evaluations=77" in done.stdout
    assert "a former latency table" in done.stdout
    assert "--yes" in done.stdout
    assert files(chain) == kept
    gone = call(chain.output_dir, "--yes")
    assert gone.exit_code == 0, gone.stderr
    assert f"removed {former}" in gone.stdout
    assert not former.exists() and not table.exists()
    assert files(chain) == before | {chain.output_dir / "search.notes"}
    assert "nothing was set aside" in call(chain.output_dir).stdout


def test_output_of_every_stage_is_found(chain):
    stages = ("supernet", "search", "finetune", "engines", "compare", "summary", "rank")
    former = [chain.output_dir / f"{name}.3" for name in stages]
    for folder in former:
        shutil.copytree(chain.output_dir / "search", folder)
    found = clean(chain.output_dir).found
    assert [each.path for each in found] == former
    assert all(each.about.startswith("finished, ") for each in found)


def test_a_changed_file_of_a_stage_is_found(chain):
    chosen = chain.output_dir / "search" / "chosen.json"
    former = chosen.with_name("chosen.json.1")
    shutil.copy(chosen, former)
    assert call(chain.output_dir, "--yes").exit_code == 0
    assert not former.exists() and chosen.exists()


def test_a_configuration_names_the_folder_as_well(chain, tmp_path):
    former, _ = aside(chain)
    done = call("quickstart", f"output_dir={chain.output_dir}", "--json")
    found = json.loads(done.stdout)
    assert str(former) in [each["path"] for each in found["found"]]
    assert found["removed"] is False
    assert former.exists()


def test_a_folder_that_is_not_there(tmp_path):
    done = call("quickstart", f"output_dir={tmp_path / 'none'}")
    assert done.exit_code == 0
    assert "nothing was set aside" in done.stdout
    assert not (tmp_path / "none").exists()
