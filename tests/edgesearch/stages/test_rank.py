"""The command rank, on a finished run: what it prints, writes, keeps and refuses."""

import csv
import json
import shutil
import signal

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from devices.errors import FileError
from edgesearch.cli.main import app
from edgesearch.evaluate.rank_results import RankedSubnet, RankedSubnets
from edgesearch.families import load_space, space_from_dict
from edgesearch.stages.rank import spread_subnets

FEW = ("rank.subnets=6", "rank.bins=2", "rank.draws=100")
SCORES = [
    *("agreement", "MACs", "parameters", "depth", "cosine", "relation", "cka"),
    *("self-similarity", "relation of places", "self-similarity, as released"),
    *("contrastive loss", "cosine, not recalibrated", "latency"),
]


@pytest.fixture
def call(chain):
    def call(*arguments):
        where = [str(chain.config), f"output_dir={chain.output_dir}", *FEW]
        return CliRunner().invoke(app, ["rank", *where, *arguments])

    return call


@pytest.fixture(scope="module")
def ranked(finished, tmp_path_factory):
    """A copy of the finished run that was ranked, and the result. Do not write into it."""
    chain = finished[0].copied(tmp_path_factory.mktemp("ranked"))
    done = chain.run("rank", *FEW, "--json")
    assert done.returncode == 0, done.stderr
    return chain, json.loads(done.stdout)


def refused(result, *messages):
    assert result.exit_code == 2, result.output
    assert result.stderr.count("error: required:") == 1
    for message in messages:
        assert message in result.stderr


def rows_of(chain):
    with (chain.output_dir / "rank/rank.csv").open() as file:
        return list(csv.DictReader(file))


def lines_of(chain):
    return (chain.output_dir / "rank/subnets.jsonl").read_text("utf-8").splitlines()


class TestResult:
    def test_figures(self, ranked):
        chain, result = ranked
        assert [score["score"] for score in result["scores"]] == SCORES
        assert (result["subnets"], result["accuracy"], result["bins_by"]) == (
            6,
            "knn",
            "latency_ms",
        )
        assert result["images"] == 64
        assert json.loads((chain.output_dir / "rank/rank.json").read_text("utf-8")) == result
        assert (chain.output_dir / "rank/rank.png").read_bytes().startswith(b"\x89PNG")

    def test_taus_are_those_of_the_table(self, ranked):
        chain, result = ranked
        rows = rows_of(chain)
        accuracies = [float(row["accuracy"]) for row in rows]
        for score in result["scores"][:-1]:
            values = [float(row[score["score"]]) for row in rows]
            expected = stats.kendalltau(values, accuracies).statistic
            assert score["tau"]["value"] == pytest.approx(expected, nan_ok=True)

    def test_accuracies_are_those_of_evaluate(self, ranked):
        chain, _ = ranked
        row = rows_of(chain)[2]
        evaluated = chain.run("evaluate", "--architecture", row["architecture"], "--json")
        (named,) = (r for r in json.loads(evaluated.stdout)["rows"] if r["name"] == "named")
        assert float(row["accuracy"]) == pytest.approx(named["knn"], abs=2 / 359)

    def test_scores_are_those_of_their_names(self, ranked):
        rows = rows_of(ranked[0])
        assert all(row["agreement"] == row["cosine"] for row in rows)
        assert all(row["cosine"] != row["cosine, not recalibrated"] for row in rows)

    def test_bins_are_equal_parts_by_latency(self, ranked):
        rows = rows_of(ranked[0])
        by_cost = sorted(rows, key=lambda row: float(row["cost"]))
        assert [row["bin"] for row in by_cost] == ["0"] * 3 + ["1"] * 3

    def test_for_people(self, ranked, tmp_path):
        done = ranked[0].copied(tmp_path).run("rank", *FEW)
        assert done.returncode == 0, done.stderr
        assert "finished before: all 6 subnets are known" in done.stderr
        assert done.stdout.splitlines()[1].split()[0] == "agreement"
        assert "of 6 subnets, scored on 64 images; 2 bins by predicted latency" in done.stdout


class TestAgain:
    @pytest.fixture
    def chain(self, ranked, tmp_path):
        return ranked[0].copied(tmp_path)

    def test_a_torn_line_is_made_again_and_nothing_else(self, call, chain, ranked):
        path = chain.output_dir / "rank/subnets.jsonl"
        before = lines_of(chain)
        marked = json.loads(before[0])
        marked["accuracy"] = 0.125
        before[0] = json.dumps(marked)
        path.write_text("\n".join([*before[:4], before[4][:30]]), "utf-8")
        result = call("--json")
        assert result.exit_code == 0, result.output
        assert lines_of(chain)[:4] == before[:4]
        assert json.loads(result.stdout)["accuracies"][0] == 0.125
        assert len(lines_of(chain)) == 6
        assert [json.loads(line)["architecture"] for line in lines_of(chain)] == [
            json.loads(line)["architecture"] for line in before
        ]

    def test_other_bins_need_no_new_subnets(self, call, chain):
        before = lines_of(chain)
        result = call("rank.bins=3", "--json")
        assert len(json.loads(result.stdout)["bin_edges"]) == 3
        assert lines_of(chain) == before

    def test_more_subnets_go_on_from_those_that_are_known(self, call, chain):
        before = lines_of(chain)
        result = call("rank.subnets=9", "--json")
        assert result.exit_code == 0, result.output
        assert "rank: 6 of 9 subnets are known" in result.stderr
        assert "finished before" not in result.stderr
        assert result.stderr.count("rank 9/9: agreement") == 1
        after = lines_of(chain)
        assert after[:6] == before
        assert (len(after), len(rows_of(chain))) == (9, 9)

    def test_fewer_are_known(self, call, chain):
        before = lines_of(chain)
        result = call("rank.subnets=4", "--json")
        assert "rank: finished before: all 4 subnets are known" in result.stderr
        assert (json.loads(result.stdout)["subnets"], len(rows_of(chain))) == (4, 4)
        assert lines_of(chain) == before
        assert "all 6 subnets are known" in call().stderr

    def test_another_seed_draws_others(self, call, chain):
        record = json.loads((chain.output_dir / "rank/stage.json").read_text("utf-8"))
        space = space_from_dict(record["config"]["space"])
        known, wanted = (set(spread_subnets(space, 6, seed)) for seed in (0, 5))
        assert known != wanted
        result = call("rank.seed=5")
        assert f"rank: {len(known & wanted)} of 6 subnets are known" in result.stderr
        assert "finished before" not in result.stderr
        assert len(lines_of(chain)) == len(known | wanted)

    def test_stopped_on_the_way_to_more_it_says_so(self, call, chain, monkeypatch):
        def add_and_stop(found, subnet):
            add(found, subnet)
            raise KeyboardInterrupt

        add = RankedSubnets.add
        with monkeypatch.context() as patch:
            patch.setattr(RankedSubnets, "add", add_and_stop)
            assert call("rank.subnets=9").exit_code == 130
        result = call("rank.subnets=9")
        assert result.exit_code == 0, result.output
        said = "rank: going on where it was stopped; 7 of 9 subnets are known"
        assert said in " ".join(result.stderr.split())
        assert "finished before: all 9 subnets are known" in call("rank.subnets=9").stderr

    def test_of_an_earlier_version_it_is_kept(self, call, chain):
        path = chain.output_dir / "rank/stage.json"
        record = json.loads(path.read_text("utf-8"))
        record["config"] |= {"rank.subnets": 120, "rank.seed": 3}
        path.write_text(json.dumps(record), "utf-8")
        assert "finished before: all 6 subnets are known" in call().stderr
        assert not (chain.output_dir / "rank.1").exists()

    def test_another_score_is_ranked_anew(self, call, chain):
        result = call("search.score=relation", "--json")
        assert "search.score has changed from 'cosine' to 'relation'" in result.stderr
        assert (chain.output_dir / "rank.1/subnets.jsonl").exists()
        assert all(row["agreement"] == row["relation"] for row in rows_of(chain))

    @pytest.mark.parametrize("line", ["{", "{}", '{"architecture": {}}', "[]"])
    def test_damaged_lines(self, call, chain, line):
        (chain.output_dir / "rank/subnets.jsonl").write_text(line + "\n", "utf-8")
        refused(call(), "subnets that `edgesearch rank` wrote, one JSON object a line", "Move the")


def test_no_room(tmp_path):
    (tmp_path / "file").touch()
    space = load_space("resnet_tiny")
    found = RankedSubnets(tmp_path / "file" / "subnets.jsonl", space)
    subnet = RankedSubnet(space.smallest, 0.5, {"agreement": 0.9})
    message = "room to append to .*subnets.jsonl; found: File exists. Free space"
    with pytest.raises(FileError, match=message):
        found.add(subnet)


def test_stopped_it_goes_on(chain, ranked):
    path = chain.output_dir / "rank/subnets.jsonl"
    done = chain.stopped("rank", signal.SIGINT, lambda: path.exists() and path.stat().st_size, *FEW)
    assert done.returncode == 130, done.stderr
    before = path.read_bytes()
    done = chain.run("rank", *FEW, "--json")
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(before)
    assert json.loads(done.stdout)["scores"] == ranked[1]["scores"]


def test_without_a_table_bins_are_made_by_macs(call, chain):
    shutil.rmtree(chain.output_dir / "latency")
    result = call("rank.accuracy=linear", "search.task=detection", "--json")
    assert result.exit_code == 0, result.output
    assert "no latency table of local-cpu: bins are made by MACs" in result.stderr
    found = json.loads(result.stdout)
    assert (found["bins_by"], found["accuracy"]) == ("macs", "linear")
    rows = rows_of(chain)
    assert all(row["cost"] == row["MACs"] for row in rows)
    # The mean of the batches' figures against that of all at once.
    same = [float(row["self-similarity"]) for row in rows]
    assert [float(row["agreement"]) for row in rows] == pytest.approx(same, abs=1e-6)


def test_images_without_labels(call, chain):
    refused(call("data.holdout=0"), "class folders, for an accuracy")


class TestSpread:
    def test_covers_the_range(self):
        space = load_space("resnet_small")
        chosen = spread_subnets(space, 40, 0)
        macs = np.array([space.macs(a) for a in chosen])
        whole = space.sum_over_blocks(lambda block: block.macs)
        assert len(set(chosen)) == 40
        assert (np.diff(macs) >= 0).all()
        parts = np.histogram(macs, np.linspace(whole.min(), whole.max(), 9))[0]
        assert parts.min() >= 3

    def test_depends_on_the_seed_only(self):
        space = load_space("resnet_small")
        assert spread_subnets(space, 9, 0) == spread_subnets(space, 9, 0)
        assert spread_subnets(space, 9, 0) != spread_subnets(space, 9, 1)

    @pytest.mark.parametrize("name", ["resnet_tiny", "resnet_small"])
    def test_fewer_are_among_more(self, name):
        space = load_space(name)
        fewer, more = (set(spread_subnets(space, count, 2)) for count in (10, 60))
        assert len(fewer & more) == 10

    @pytest.mark.parametrize("count", [31, 32, 50])
    def test_a_small_space_is_taken_whole(self, chain, count):
        record = json.loads((chain.output_dir / "supernet/stage.json").read_text("utf-8"))
        space = space_from_dict(record["config"]["space"])
        assert len(set(spread_subnets(space, count, 0))) == min(count, space.size)
