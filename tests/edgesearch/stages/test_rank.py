"""The command rank, on a finished run: what it prints, writes, keeps and refuses."""

import csv
import json
import shutil

import numpy as np
import pytest
from scipy import stats

from edgesearch.evaluate.rank_results import RankedSubnets
from edgesearch.families import load_space
from edgesearch.stages.rank import spread_subnets

FEW = ("rank.subnets=6", "rank.bins=2", "rank.draws=100")
SCORES = [
    *("agreement", "MACs", "parameters", "depth", "cosine", "relation", "cka", "regression"),
    *("self-similarity", "relation of places", "self-similarity, as released"),
    *("contrastive loss", "cosine, not recalibrated", "labels", "latency"),
]
SUBNETS = "rank/subnets.jsonl"


@pytest.fixture(scope="module")
def ranked(finished, tmp_path_factory):
    """A copy of the finished run that was ranked, and the result. Do not write into it."""
    chain = finished[0].copied(tmp_path_factory.mktemp("ranked"))
    return chain, chain.json("rank", *FEW)


def rows_of(chain):
    with (chain.output_dir / "rank/rank.csv").open() as file:
        return list(csv.DictReader(file))


class TestResult:
    def test_figures(self, ranked):
        chain, result = ranked
        assert [score["score"] for score in result["scores"]] == SCORES
        names = ("subnets", "accuracy", "bins_by", "images")
        assert [result[name] for name in names] == [6, "knn", "latency_ms", 64]
        images = result.pop("data")
        assert images["understood"].startswith("10 classes")
        assert chain.read("rank/rank.json") == result
        assert (chain.output_dir / "rank/rank.png").read_bytes().startswith(b"\x89PNG")

    def test_they_are_those_of_the_table(self, ranked):
        chain, result = ranked
        rows = rows_of(chain)
        accuracies = [float(row["accuracy"]) for row in rows]
        for score in result["scores"][:-1]:
            values = [float(row[score["score"]]) for row in rows]
            expected = stats.kendalltau(values, accuracies).statistic
            assert score["tau"]["value"] == pytest.approx(expected, nan_ok=True)
        assert all(row["agreement"] == row["cosine"] for row in rows)
        assert all(row["cosine"] != row["cosine, not recalibrated"] for row in rows)
        by_cost = sorted(rows, key=lambda row: float(row["cost"]))
        assert [row["bin"] for row in by_cost] == ["0"] * 3 + ["1"] * 3

    def test_accuracies_are_those_of_evaluate(self, ranked, tmp_path):
        chain = ranked[0].copied(tmp_path)
        row = rows_of(chain)[2]
        evaluated = chain.json("evaluate", "--architecture", row["architecture"])
        (named,) = (r for r in evaluated["rows"] if r["name"] == "named")
        assert float(row["accuracy"]) == pytest.approx(named["knn"], abs=2 / 359)


class TestAgain:
    @pytest.fixture
    def chain(self, ranked, tmp_path):
        return ranked[0].copied(tmp_path)

    def test_finished_it_prints_for_people(self, chain):
        done = chain.passes("rank", *FEW)
        assert "already finished: all 6 subnets are known" in done.stderr
        assert done.stdout.splitlines()[1].split()[0] == "agreement"
        assert (
            "of 6 subnets, scored on 64 images; 2 bins by predicted latency of the backbone"
            in done.stdout
        )

    def test_a_torn_line_is_made_again_and_nothing_else(self, chain):
        before = chain.lines(SUBNETS)
        before[0] = json.dumps({**json.loads(before[0]), "accuracy": 0.125})
        torn = "\n".join([*before[:4], before[4][:30]])
        (chain.output_dir / SUBNETS).write_text(torn, "utf-8")
        result = chain.json("rank", *FEW)
        after = chain.lines(SUBNETS)
        assert after[:4] == before[:4]
        assert result["accuracies"][0] == 0.125
        names = [[json.loads(line)["architecture"] for line in part] for part in (before, after)]
        assert names[0] == names[1]

    def test_more_subnets_go_on_from_those_that_are_known(self, chain, monkeypatch):
        def add_and_stop(found, subnet):
            add(found, subnet)
            raise KeyboardInterrupt

        add, before = RankedSubnets.add, chain.lines(SUBNETS)
        with monkeypatch.context() as patch:
            patch.setattr(RankedSubnets, "add", add_and_stop)
            stopped = chain.call("rank", *FEW, "rank.subnets=9")
        assert stopped.returncode == 130
        assert "rank: 6 of 9 subnets are known" in stopped.stderr
        said = chain.passes("rank", *FEW, "rank.subnets=9").stderr
        going_on = "rank: resuming where it was stopped; 7 of 9 subnets are known"
        assert going_on in " ".join(said.split())
        assert said.count("rank 9/9: agreement") == 1
        after = chain.lines(SUBNETS)
        assert after[:6] == before
        assert (len(after), len(rows_of(chain))) == (9, 9)
        # Fewer are known, and other bins need no new ones.
        result = chain.json("rank", *FEW, "rank.subnets=4", "rank.bins=3")
        assert (result["subnets"], len(rows_of(chain)), len(result["bin_edges"])) == (4, 4, 3)
        assert chain.lines(SUBNETS) == after

    def test_another_seed_draws_others(self, chain):
        known, wanted = (set(spread_subnets(chain.space, 6, seed)) for seed in (0, 5))
        assert known != wanted
        said = chain.passes("rank", *FEW, "rank.seed=5").stderr
        assert f"rank: {len(known & wanted)} of 6 subnets are known" in said
        assert len(chain.lines(SUBNETS)) == len(known | wanted)

    def test_another_score_is_ranked_anew(self, chain):
        said = chain.passes("rank", *FEW, "search.score=relation").stderr
        assert "search.score has changed from 'cosine' to 'relation'" in said
        assert (chain.output_dir / "rank.1/subnets.jsonl").exists()
        for row in rows_of(chain):
            assert float(row["agreement"]) == pytest.approx(float(row["relation"]), abs=1e-6)

    def test_damaged_lines(self, chain):
        wanted = "subnets that `edgesearch rank` wrote"
        for line in ("{", "{}", '{"architecture": {}}', "[]"):
            (chain.output_dir / SUBNETS).write_text(line + "\n", "utf-8")
            chain.refuses("rank", *FEW, says=(wanted, "away"))


def test_without_a_table_bins_are_made_by_macs(chain):
    shutil.rmtree(chain.output_dir / "latency")
    done = chain.passes("rank", *FEW, "rank.accuracy=linear", "search.task=detection", "--json")
    assert "no latency table of local-cpu: binning by MACs" in done.stderr
    found = json.loads(done.stdout)
    assert [found[each] for each in ("bins_by", "latency_of", "accuracy")] == [
        "macs",
        None,
        "linear",
    ]
    rows = rows_of(chain)
    assert all(row["cost"] == row["MACs"] for row in rows)
    # The mean of the batches' figures against that of all at once.
    same = [float(row["self-similarity"]) for row in rows]
    assert [float(row["agreement"]) for row in rows] == pytest.approx(same, abs=1e-6)


def test_images_without_labels(finished, tmp_path):
    finished[0].copied(tmp_path).refuses("rank", "data.holdout=0", says="images with classes in")


class TestSpread:
    @pytest.mark.parametrize("name", ["resnet_tiny", "resnet_small"])
    def test_covers_the_range_and_depends_on_the_seed_only(self, name):
        space = load_space(name)
        chosen = spread_subnets(space, 40, 0)
        macs = np.array([space.macs(a) for a in chosen])
        assert len(set(chosen)) == 40
        assert (np.diff(macs) >= 0).all()
        if name == "resnet_small":
            ends = space.macs(space.smallest), space.macs(space.largest)
            parts = np.histogram(macs, np.linspace(*ends, 9))[0]
            assert parts.min() >= 3
        assert spread_subnets(space, 40, 0) == chosen != spread_subnets(space, 40, 1)
        assert set(spread_subnets(space, 10, 0)) < set(chosen), "fewer are among more"

    @pytest.mark.parametrize("count", [31, 32, 50])
    def test_a_small_space_is_taken_whole(self, finished, count):
        space = finished[0].space
        assert len(set(spread_subnets(space, count, 0))) == min(count, space.size)
