"""Budgets of whole models: a small run whose task is set before or after it was profiled."""

import csv
import json
import re

import pytest

from devices.errors import UnreachableError
from edgesearch.errors import StageError
from edgesearch.latency.load_table import corrected_model
from edgesearch.latency.table import (
    VALIDATION,
    WHOLE,
    WITH_HEAD,
    WITH_HEAD_VALIDATION,
    about_network,
    measured_networks,
    table_digest,
)
from edgesearch.latency.workloads import WorkloadFiles, network_key
from edgesearch.stages import within_budget
from edgesearch.tasks.head_costs import TaskHead
from profilers import LatencyTable

HEAD = TaskHead("classification", "linear", 10)
TASK = (
    "finetune.task=classification",
    "finetune.epochs=1",
    "finetune.label_share=0.2",
    "finetune.tensorboard=false",
    "finetune.threads=1",
)
OF_WHOLE = "whole model (head linear for 10 classes)"


@pytest.fixture(scope="module")
def with_task(finished, tmp_path_factory):
    """A finished run without a task, profiled again with one; and what it printed."""
    chain = finished[0].copied(tmp_path_factory.mktemp("with_task"))
    before = chain.table.read_text("utf-8")
    done = chain.passes("profile", *TASK)
    return chain, before, done


def test_a_run_that_was_profiled_without_a_task_says_what_adds_the_head(chain):
    for stage in ("search", "validate", "export"):
        said = (f"with the {HEAD} (finetune.task classification)", "Run `edgesearch profile`")
        chain.refuses(stage, *TASK, says=said)


def test_only_whole_models_are_added_to_a_table(with_task):
    chain, before, done = with_task
    assert chain.table.read_text("utf-8").startswith(before)
    added = [
        json.loads(line) for line in chain.table.read_text("utf-8")[len(before) :].splitlines()
    ]
    kinds = {each["kind"] for each in added if "key" in each and not each.get("anchor")}
    assert kinds == {WITH_HEAD, "reference", "overhead"}
    assert f"Latency of the {OF_WHOLE} = " in done.stdout
    assert f"as predicted ({OF_WHOLE})" in done.stdout
    assert chain.json("profile", *TASK)["skipped"]


def test_a_whole_model_that_failed_is_exported_again_only_if_asked(
    with_task, tmp_path, monkeypatch
):
    chain = with_task[0].copied(tmp_path)
    table = LatencyTable.load(chain.table)
    failing = measured_networks(table, chain.space, WITH_HEAD, head=HEAD)[0]

    def failed(lines):
        kept = [line for line in lines if line.get("key") != failing.key]
        about = about_network(chain.space, failing.architecture, HEAD)
        error = {"session": 1, "error": "no kernel", "about": about}
        return [*kept, {"kind": WITH_HEAD, "key": failing.key, **error}]

    chain.change_table(failed)
    done = chain.passes("profile", *TASK, "--json")
    (warned,) = (line for line in done.stderr.splitlines() if "warning:" in line)
    assert f"although their blocks run, {failing.key} because of: no kernel; " in warned
    assert "profile.retry_errors=true" in warned
    assert json.loads(done.stdout)["failed_networks"] == [failing.key]
    exported = []
    real = WorkloadFiles.with_head

    def noted(self, architectures, *args):
        exported.extend(architectures)
        return real(self, architectures, *args)

    monkeypatch.setattr(WorkloadFiles, "with_head", noted)
    more = ("profile.rounds=5", "profile.networks=8")  # the others lack a round
    chain.passes("profile", *TASK, *more)
    assert exported
    assert failing.architecture not in exported
    assert failing.key in LatencyTable.load(chain.table).errors
    exported.clear()
    chain.passes("profile", *TASK, *more, "profile.retry_errors=true")
    assert failing.architecture in exported
    assert failing.key not in LatencyTable.load(chain.table).errors


def test_without_the_task_nothing_changes(with_task, finished):
    chain, _, _ = with_task
    assert table_digest(chain.table) == table_digest(finished[0].table)
    assert chain.json("profile")["skipped"]
    found = chain.json("search")
    assert (found["skipped"], found["latency_of"]) == (True, "backbone")


def test_all_latencies_are_those_of_whole_models(with_task, tmp_path):
    chain = with_task[0].copied(tmp_path)
    space = chain.space
    plan = chain.json("plan", *TASK)
    assert plan["latency_of"] == OF_WHOLE
    model = corrected_model(space, LatencyTable.load(chain.table), HEAD)
    ends = [model.predict(each).median_ms for each in (space.smallest, space.largest)]
    assert plan["latency_ms"] == pytest.approx(ends)

    # Within a share of the largest whole model, the budget is a whole model's.
    budgets = ("search.budgets={latency_of_largest: 1.0}",)
    found = chain.json("search", *TASK, *budgets)
    (winner,) = found["winners"]["winners"]
    figures = winner["latency_ms"]["local-cpu"]
    architecture = chain.architecture(winner["architecture"])
    assert found["latency_of"] == figures["latency_of"] == OF_WHOLE
    assert figures["budget"] == pytest.approx(ends[1])
    assert figures["predicted"] == pytest.approx(model.predict(architecture).median_ms)
    chain.refuses("search", *TASK, "search.budgets={latency_ms: 1.0e-4}", says="latency_ms")
    # Without the task the same budget is another one: scores are kept, winners are not.
    again = chain.json("search", *budgets)
    assert (again["skipped"], again["latency_of"]) == (False, "backbone")


def test_export_measures_what_it_ships(with_task, tmp_path):
    chain = with_task[0].copied(tmp_path)
    chain.passes("search", *TASK)
    done = chain.passes("export", *TASK, "export.tensorrt=")
    assert f"; {OF_WHOLE}" in done.stdout
    assert "was made with other settings" not in done.stderr
    (winner,) = chain.read("winners.json")["winners"]
    figures = winner["latency_ms"]["local-cpu"]
    table = LatencyTable.load(chain.table)
    architecture = chain.architecture(winner["architecture"])
    measured = measured_networks(table, chain.space, WHOLE, head=HEAD)
    # Before the training, whether it is worth it; after it, what is shipped.
    assert [each.architecture for each in measured] == [architecture] * 2
    assert figures["measured_p50"] == pytest.approx(measured[-1].median_ms)


def test_validate_measures_whole_models(with_task, tmp_path):
    chain = with_task[0].copied(tmp_path)
    done = chain.passes("validate", *TASK, "validation.networks=3")
    assert f"latencies: {OF_WHOLE}" in done.stdout
    assert "post-processing" not in done.stdout
    table = LatencyTable.load(chain.table)
    assert not table.keys(VALIDATION)
    measured = measured_networks(table, chain.space, WITH_HEAD_VALIDATION, head=HEAD)
    again = chain.json("validate", *TASK, "validation.networks=3")
    assert (again["latency_of"], again["n"]) == (OF_WHOLE, len(measured))
    rows = {row["architecture"]: row["measured_ms"] for row in again["networks"]}
    assert rows == {str(each.architecture): pytest.approx(each.median_ms) for each in measured}
    shown = re.findall(
        r"whole models with the head linear .*held out", chain.passes("profile", *TASK).stdout
    )
    assert len(shown) == 1


def test_rank_bins_by_whole_models(with_task, tmp_path):
    chain, few = with_task[0].copied(tmp_path), ("rank.subnets=6", "rank.bins=2", "rank.draws=100")
    result = chain.json("rank", *TASK, *few)
    assert (result["bins_by"], result["latency_of"]) == ("latency_ms", OF_WHOLE)
    model = corrected_model(chain.space, LatencyTable.load(chain.table), HEAD)
    with (chain.output_dir / "rank/rank.csv").open() as file:
        for row in csv.DictReader(file):
            predicted = model.predict(chain.space.from_text(row["architecture"])).median_ms
            assert float(row["cost"]) == pytest.approx(predicted)
    # Without the task they are backbones; nothing is ranked anew.
    again = chain.passes("rank", *few)
    assert "predicted latency of the backbone" in again.stdout
    assert "all 6 subnets are known" in again.stderr


def test_classes_are_given_or_counted(chain, tmp_path):
    assert chain.api(finetune={"task": "classification"}).head == HEAD
    # On a board without the images.
    away = {"source": "folder", "root": str(tmp_path / "none")}
    with pytest.raises(StageError, match="number of classes.*Set finetune.classes=NUMBER"):
        chain.api(finetune={"task": "classification"}, data=away).head  # noqa: B018
    given = chain.api(finetune={"task": "classification", "classes": 7}, data=away).head
    assert given.classes == 7
    chain.refuses(
        "finetune", *TASK, "finetune.classes=7", says="finetune.classes 10, as the images"
    )


@pytest.fixture
def too_slow(with_task, tmp_path, monkeypatch):
    """A finished search whose winner was measured as too slow, and what it has chosen."""
    monkeypatch.setattr(within_budget, "SECONDS_BEFORE_SECOND_LOOK", 0)
    chain = with_task[0].copied(tmp_path)
    chain.passes("search", *TASK)
    chosen = chain.read("search/chosen.json")
    for candidate in chosen["winners"] + chosen["reserves"]:
        candidate["latency_ms"]["local-cpu"]["budget"] = 100.0
    chain.write("search/chosen.json", chosen)
    slow = chain.architecture(chosen["winners"][0]["architecture"])

    def measured_beforehand(lines):
        session = 1 + max(line.get("session", 0) for line in lines)
        line = {
            "kind": WHOLE,
            "key": f"{network_key(WHOLE, chain.space, slow, HEAD)}/{session}",
            "session": 1,
            "samples_ms": [200.0],
            "about": about_network(chain.space, slow, HEAD),
        }
        first = next(n for n, each in enumerate(lines) if each.get("kind") == "reference")
        rounds = [{**line, "round": number} for number in range(1, 100)]
        return [*lines[:first], *rounds, *lines[first:]]

    chain.change_table(measured_beforehand)
    return chain, chosen


def is_shipped(chain, chosen):
    """Whether the export has replaced the winner by the first reserve, and no other was trained."""
    (winner,) = chain.read("winners.json")["winners"]
    assert winner["architecture"] == chosen["reserves"][0]["architecture"]
    assert winner["latency_ms"]["local-cpu"]["measured_p50"] < 100
    (former,) = winner["replaced"]
    assert (former["name"], former["architecture"]) == ("w0", chosen["winners"][0]["architecture"])
    trained = [path.parent.name for path in chain.output_dir.glob("finetune/*/model.safetensors")]
    return trained == [str(chain.architecture(winner["architecture"]))]


def test_a_reserve_takes_the_place_of_a_whole_model_that_is_too_slow(too_slow):
    chain, chosen = too_slow
    done = chain.passes("export", *TASK, "export.tensorrt=")
    assert "w0: its measured median of 200.000 ms" in done.stderr
    assert is_shipped(chain, chosen)


def test_a_winner_that_is_too_slow_is_not_trained(too_slow):
    chain, chosen = too_slow
    done = chain.passes("finetune", *TASK)
    assert "w0: its measured median of 200.000 ms" in done.stderr
    # Measured: not again, though the next measurement would not find it too slow.
    again = chain.passes("finetune", *TASK)
    assert "200.000 ms" not in again.stderr and "already finished" in again.stderr
    exported = chain.passes("export", *TASK, "export.tensorrt=")
    assert "200.000 ms" not in exported.stderr
    assert is_shipped(chain, chosen)
    assert [each["name"] for each in chain.read("winners.json")["reserves"]] == [
        each["name"] for each in chosen["reserves"][1:]
    ]


def test_no_reserve_is_left_before_anything_is_trained(too_slow):
    chain, _ = too_slow
    wanted = "error: required: a subnet for w0 with a median within 100.000 ms"
    chain.refuses("finetune", *TASK, "export.max_replacements=0", says=wanted)
    assert not [*chain.output_dir.glob("finetune/*/*")]


def test_winners_are_trained_as_chosen_where_the_device_cannot_be_reached(too_slow, monkeypatch):
    chain, chosen = too_slow

    def unreachable(spec):
        raise UnreachableError("a connection to the board", "no answer", "Switch it on.")

    monkeypatch.setattr(within_budget, "open_meter", unreachable)
    done = chain.passes("finetune", *TASK)
    said = (
        "the winners could not be measured on local-cpu before their training (no answer): export"
    )
    assert said in done.stderr
    (trained,) = chain.output_dir.glob("finetune/*/model.safetensors")
    winner = chain.architecture(chosen["winners"][0]["architecture"])
    assert trained.parent.name == str(winner)
