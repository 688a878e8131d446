"""The winners beside other networks, on a finished run."""

import csv
import json
import shutil
import signal

import pytest
import torch
from torchvision import models

from profilers.build_table import _TableBuilder

OPTIONS = (
    "finetune.task=classification",
    "finetune.epochs=1",
    "finetune.label_share=0.2",
    "finetune.tensorboard=false",
    "finetune.threads=1",
    "compare.baselines=[mobilenet_v3_small]",
    "compare.resolution=same",
    "compare.random=0",
    "compare.scaled=false",
    "compare.seeds=2",
    "compare.rounds=10",
)


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory):
    """A run with a finished comparison, and its result."""
    chain = finished[0].copied(tmp_path_factory.mktemp("compared"))
    return chain, chain.json("compare", *OPTIONS)


def test_all_are_trained_alike_and_measured_together(compared):
    chain, result = compared
    rows = {row["name"]: row for row in result["rows"]}
    assert {"w0", "largest", "smallest", "mobilenet_v3_small 16 px"} <= {*rows, *result["same"]}
    assert [row["kind"] for row in result["rows"]][0] == "winner"
    assert all(len(row["values"]) == 2 for row in rows.values())
    assert all(0 < row["latency_ms"] <= row["p95_ms"] for row in rows.values())
    assert all(0 <= row["int8_metric"] <= 1 and row["int8_latency_ms"] > 0 for row in rows.values())
    assert rows["mobilenet_v3_small 16 px"]["beginning"] == "random"
    assert rows["w0"]["beginning"] == "supernet"
    assert rows["w0"]["ahead"] is None
    gap = rows["smallest"]["ahead"]
    assert gap["mean"] == pytest.approx(rows["w0"]["mean"] - rows["smallest"]["mean"])
    front = [row for row in rows.values() if row["on_front"]]
    fastest = min(rows.values(), key=lambda row: row["latency_ms"])
    assert fastest in front
    assert result["verdicts"][0].startswith("w0 is ")


def test_table_and_picture_hold_the_same(compared):
    chain, result = compared
    with (chain.output_dir / "compare" / "compare.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == [row["name"] for row in result["rows"]]
    assert [float(line["mean"]) for line in lines] == [row["mean"] for row in result["rows"]]
    assert (chain.output_dir / "compare" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_call_trains_and_measures_nothing(compared, monkeypatch):
    chain, result = compared
    monkeypatch.delattr("edgesearch.tasks.finetuner.Finetuner.fit")
    monkeypatch.delattr(_TableBuilder, "measure")
    assert chain.json("compare", *OPTIONS)["rows"] == result["rows"]


def test_weights_of_a_baseline_add_only_its_trainings(compared, tmp_path):
    chain = compared[0].copied(tmp_path)
    network = models.get_model("mobilenet_v3_small", weights=None)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    weights = f"compare.weights.mobilenet_v3_small={tmp_path / 'mine.pth'}"
    said = chain.passes("compare", *OPTIONS, weights).stderr
    total = 2 * len(compared[1]["rows"])
    assert f"{total - 2} of {total} trainings are finished" in said
    (row,) = [r for r in chain.read("compare/results.json")["rows"] if r["kind"] == "baseline"]
    assert row["beginning"] == "public"


def test_printed_from_fast_to_slow(compared):
    chain, result = compared
    printed = chain.passes("compare", *OPTIONS).stdout
    assert "winner ahead" in printed
    assert result["verdicts"][0] in printed
    names = [row["name"] for row in sorted(result["rows"], key=lambda row: row["latency_ms"])]
    places = [printed.index(f"\n{name} ") for name in names]
    assert places == sorted(places)


def test_at_the_winners_latency_baselines_have_their_own_resolution(compared, tmp_path):
    chain = compared[0].copied(tmp_path)
    shutil.rmtree(chain.output_dir / "compare")
    few = ("compare.resolution=budget", "compare.random=2", "compare.ends=false")
    # It was profiled without a task; random architectures are of the whole model's latency.
    chain.refuses("compare", *OPTIONS, *few, says="Run `edgesearch profile`")
    chain.passes("profile", *OPTIONS)
    done = chain.json("compare", *OPTIONS, *few, "compare.int8=false")
    assert done["left_out"] == {"mobilenet_v3_small": "slower than w0 even at 32 px"}
    assert all(row["int8_metric"] is None for row in done["rows"])
    assert chain.read("compare/resolutions.json")["resolutions"] == {"mobilenet_v3_small": None}


def test_latencies_of_another_machine_are_measured_anew(compared, tmp_path):
    chain = compared[0].copied(tmp_path)
    for path in (chain.output_dir / "compare").glob("latency-*.jsonl"):
        first, *others = path.read_text("utf-8").splitlines(keepends=True)
        header = json.loads(first)
        header["fingerprint"]["chip"] = "Z80"
        path.write_text(json.dumps(header) + "\n" + "".join(others), "utf-8")
    done = chain.passes("compare", *OPTIONS)
    assert done.stderr.count("measuring anew") == 2  # fp32 and int8
    assert len(list((chain.output_dir / "compare").glob("latency-*.jsonl.1"))) == 2


def test_the_report_shows_it(compared, tmp_path):
    chain, result = compared
    chain.passes("report")
    page = (chain.output_dir / "report.html").read_text("utf-8")
    assert "Against networks that one might have picked" in page
    assert result["verdicts"][0] in page
    assert page.count("mobilenet_v3_small 16 px") >= 2  # table and chart


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("compare.baselines=[resnet81]", "Did you mean resnet18"),
        ("compare.baselines=[resnet18, resnet18]", "each name once"),
        ("compare.weights.resnet18=x.pth", "which is not among compare.baselines"),
        ("compare.weights.mobilenet_v3_small=nowhere.pth", "no such file"),
        ("compare.baselines=[squeezenet1_1]", "images of a size that squeezenet1_1 takes"),
        ("finetune.distill=1", "one recipe for all networks"),
        ("finetune.task=null", "a task with labels"),
    ],
)
def test_refused_before_anything_is_trained(finished, tmp_path, override, says):
    chain = finished[0].copied(tmp_path)
    chain.refuses("compare", *OPTIONS, override, says=says)
    assert not (chain.output_dir / "compare").exists()


def test_without_winners_it_says_what_to_do(empty):
    said = empty.refuses("compare", *OPTIONS)
    assert "Run `edgesearch" in said


def _files(chain, pattern):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in (chain.output_dir / "compare").glob(pattern)
    }


@pytest.mark.slow
def test_killed_in_a_training_and_while_measuring_it_ends_with_the_same_table(compared, tmp_path):
    chain = compared[0].copied(tmp_path)
    shutil.rmtree(chain.output_dir / "compare")

    def killed(moment):
        done = chain.stopped("compare", signal.SIGKILL, moment, *OPTIONS)
        assert done.returncode == -signal.SIGKILL

    def while_measuring():
        tables = _files(chain, "latency-*.jsonl").values()
        return any(content.count(b"samples_ms") > 12 for _, content in tables)

    def in_a_training():  # three are finished, and the state of the fourth is on the disk
        return len(_files(chain, "*/*/figures.json")) >= 3 and _files(chain, "*/*/*.pt")

    killed(in_a_training)
    first = _files(chain, "*/*/figures.json")
    total = sum(len(row["values"]) for row in compared[1]["rows"])
    assert 3 <= len(first) < total
    killed(while_measuring)
    trained, tables = _files(chain, "*/*/figures.json"), _files(chain, "latency-*.jsonl")
    assert len(trained) == total and first.items() <= trained.items()  # none was repeated
    result = chain.json("compare", *OPTIONS)
    assert _files(chain, "*/*/figures.json") == trained
    for path, (_, content) in tables.items():
        kept = content[: content.rindex(b"\n") + 1]  # the last line may be torn
        assert path.read_bytes().startswith(kept)
    for row, before in zip(result["rows"], compared[1]["rows"], strict=True):
        assert row["latency_ms"] > 0 and row["int8_latency_ms"] > 0
        assert _without_latencies(row) == _without_latencies(before)


def _without_latencies(row):
    """What does not depend on the moment of the measurement."""
    ahead = row["ahead"] and {**row["ahead"], "latency": None}
    measured = {"latency_ms", "interval_ms", "p95_ms", "int8_latency_ms", "on_front"}
    return {**{k: v for k, v in row.items() if k not in measured}, "ahead": ahead}
