"""The command evaluate, on a finished run: what it prints, keeps, skips and refuses."""

import json
import shutil

import pytest
import torch
from PIL import Image

from edgesearch.errors import Interrupted
from edgesearch.evaluate.evaluation_results import EvaluationResults
from edgesearch.evaluate.features import compute_features
from edgesearch.evaluate.knn import knn_accuracy
from edgesearch.evaluate.linear import linear_accuracy
from edgesearch.supernet.calibrate import recalibrate

NAMED = "stem8_w4-16_d2-1_r16"
RESULTS = "evaluation/results.json"


def only_results(chain):
    (evaluation,) = chain.read(RESULTS)["evaluations"].values()
    return evaluation["results"]


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    """A copy of the finished run that was evaluated, and the result. Do not write into it."""
    chain = finished[0].copied(tmp_path_factory.mktemp("evaluated"))
    return chain, chain.json("evaluate", "--architecture", NAMED, "--architecture", NAMED)


class TestResult:
    def test_rows(self, evaluated):
        chain, result = evaluated
        rows = result["rows"]
        assert [row["name"] for row in rows] == [
            *("winner w0", "named", "largest", "smallest"),
            *("largest, random weights", "raw pixels"),
        ]
        (winner,) = chain.read("winners.json")["winners"]
        assert [row["architecture"] for row in rows] == [
            str(chain.architecture(winner["architecture"])),
            NAMED,
            *("stem8_w8-16_d2-2_r16", "stem4_w4-8_d1-1_r16"),
            *("stem8_w8-16_d2-2_r16", None),
        ]
        assert (rows[0]["params"], rows[0]["macs"]) == (winner["params"], winner["macs"])
        assert [rows[5][name] for name in ("params", "macs")] == [None] * 2
        assert rows[2]["params"] > rows[1]["params"] > rows[3]["params"] > 0
        assert all(0.2 < row[figure] < 1 for row in rows for figure in ("knn", "linear"))
        assert (result["knn_k"], result["knn_temperature"]) == (5, 0.1)
        assert (result["train_images"], result["test_images"]) == (400, 359)
        assert result["results_path"] == str(chain.output_dir / RESULTS)
        summary = {row["name"]: row["knn"] for row in chain.read("summary/summary.json")["rows"]}
        found = {row["name"]: row["knn"] for row in rows}
        assert summary == {name: found[name] for name in summary}

    def test_figures_are_those_of_the_subnet(self, evaluated):
        """Put together from the rooms' own functions."""
        chain, result = evaluated
        run = chain.api()
        architecture = next(a for a in run.space if str(a) == NAMED)
        network = run.load_weights().subnet(architecture).to(memory_format=torch.channels_last)
        pool = run.open_images()
        recalibrate(network, pool.sample(16, 0, 64), 64)
        images = pool.labelled(16, 400)
        train, test = (
            compute_features(network, split, prepare=images.prepare)
            for split in (images.train, images.test)
        )
        features = (train, images.train_labels, test, images.test_labels)
        row = result["rows"][1]
        assert row["knn"] == pytest.approx(knn_accuracy(*features, k=5), abs=2 / 359)
        assert row["linear"] == pytest.approx(linear_accuracy(*features), abs=4 / 359)


class TestAgain:
    @pytest.fixture
    def chain(self, evaluated, tmp_path):
        return evaluated[0].copied(tmp_path)

    def test_nothing_is_evaluated_twice(self, chain, evaluated):
        results = chain.read(RESULTS)
        (evaluation,) = results["evaluations"].values()
        evaluation["results"][NAMED]["knn"] = 0.125
        chain.write(RESULTS, results)
        again = chain.json("evaluate", "--architecture", NAMED)
        assert chain.read(RESULTS) == results
        assert again["rows"][1]["knn"] == 0.125
        assert again["rows"][2:] == evaluated[1]["rows"][2:]
        done = chain.passes("evaluate")
        head, *rows = done.stdout.splitlines()
        assert head.split() == ["kNN", "linear", "params", "MACs", "architecture"]
        assert (rows[1].split()[0], rows[1].split()[-1]) == ("largest", "stem8_w8-16_d2-2_r16")
        assert (
            "accuracies on 359 held-out images; 400 labeled training images (kNN: 5 ne"
            in done.stdout
        )

    def test_only_what_is_new_is_evaluated(self, chain):
        result = chain.passes("evaluate", "--architecture", "stem8_w4-8_d2-2_r16")
        assert "known results are not computed again" in result.stderr
        assert "evaluate 1/1: named: kNN" in result.stderr
        assert "stem8_w4-8_d2-2_r16" in only_results(chain)

    def test_other_settings_are_kept_apart(self, chain, evaluated):
        few = ("evaluation.knn_k=200", "evaluation.train_images=100", "evaluation.test_images=50")
        done = chain.passes("evaluate", *few, "--json")
        assert "evaluation.knn_k 200 exceeds the 100 training images" in done.stderr
        other = json.loads(done.stdout)
        assert [other[n] for n in ("knn_k", "train_images", "test_images")] == [100, 100, 50]
        assert len(chain.read(RESULTS)["evaluations"]) == 2
        before = chain.read(RESULTS)
        assert chain.json("evaluate")["rows"][0] == evaluated[1]["rows"][0]
        assert chain.read(RESULTS) == before

    def test_other_weights_are_evaluated(self, chain):
        run = chain.api()
        weights = run.load_weights()
        for tensor in weights.query.values():
            tensor.mul_(-1)
        weights.save(run.files.weights)
        chain.passes("evaluate", "evaluation.train_images=100")
        assert len(chain.read(RESULTS)["evaluations"]) == 2

    def test_damaged_results(self, chain):
        found = chain.read(RESULTS)
        (evaluation,) = found["evaluations"].values()
        evaluation["results"][NAMED] = {"knn": 1.0}
        for content in ("{", "[]", '{"format": 2}', '{"format": 1}', json.dumps(found)):
            (chain.output_dir / RESULTS).write_text(content, "utf-8")
            chain.refuses("evaluate", "--architecture", NAMED, says="Move the file away")


def test_stopped_it_goes_on_and_before_a_search_there_are_no_winners(chain, monkeypatch):
    def add_and_stop(*arguments, **figures):
        add(*arguments, **figures)
        raise KeyboardInterrupt

    add = EvaluationResults.add
    for name in ("winners.json", "search", "latency", "engines"):
        path = chain.output_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run = chain.api(evaluation={"train_images": 100})
    with monkeypatch.context() as patch:
        patch.setattr(EvaluationResults, "add", add_and_stop)
        with pytest.raises(Interrupted, match="evaluation stopped; its results are in"):
            run.evaluate()
    before = only_results(chain)
    assert len(before) == 1
    done = chain.passes("evaluate", "evaluation.train_images=100", "--json")
    assert "no winners to evaluate: run `edgesearch search`" in done.stderr
    assert json.loads(done.stdout)["rows"][0]["name"] == "largest"
    assert only_results(chain).items() >= before.items()


class TestRefused:
    def test_no_supernet(self, empty):
        wanted = "which `edgesearch pretrain` writes"
        empty.refuses("evaluate", says=(wanted, "Run `edgesearch pretrain`"))

    def test_supernet_or_winners_of_another_space(self, chain):
        other = "space.stem_widths=[4, 8, 12]"
        chain.refuses("evaluate", other, says=("with stem_widths [4, 8, 12]", "pre-train this"))
        chain.write("winners.json", {**chain.read("winners.json"), "space_hash": "0"})
        winners = ("winners of the space 'two stages'", "Run `edgesearch search`")
        chain.refuses("evaluate", says=winners)

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("largest", "found: 'largest'"),
            ("stem8_w4-16_d2-1", "in the form stem8_w8-16_d2-2_r16"),
            ("stem8_w4-20_d2-1_r16", f"The nearest is {NAMED}."),
        ],
    )
    def test_a_name_that_is_no_architecture(self, chain, name, says):
        chain.refuses("evaluate", "--architecture", name, says=says)
        assert not (chain.output_dir / "evaluation").exists()

    def test_images_without_labels_or_with_too_few(self, chain, tmp_path):
        held_out = ("no test images (data.holdout=0.0 gives none)", "data.holdout above 0")
        chain.refuses("evaluate", "data.holdout=0", says=held_out)
        for split, count in (("train", 1), ("test", 2)):
            for number in range(2 * count):
                folder = tmp_path / "few" / split / "ab"[number % 2]
                folder.mkdir(parents=True, exist_ok=True)
                Image.new("L", (16, 16), 50 * number).save(folder / f"{number}.png")
        few = ("data.source=folder", f"data.root={tmp_path / 'few'}")
        chain.refuses("evaluate", *few, says="two or more training images of a class")
        flat = ("data.source=folder", f"data.root={tmp_path / 'few/train/a'}")
        chain.refuses("evaluate", *flat, says="no classes (training images in no class folder")
