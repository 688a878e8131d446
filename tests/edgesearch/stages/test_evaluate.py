"""The command evaluate, on a finished run: what it prints, keeps, skips and refuses."""

import json
import shutil
import signal

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from edgesearch.cli.main import app
from edgesearch.data.image_pool import ImagePool
from edgesearch.data.settings import DataSettings
from edgesearch.evaluate.features import compute_features
from edgesearch.evaluate.knn import knn_accuracy
from edgesearch.evaluate.linear import linear_accuracy
from edgesearch.families import space_from_dict
from edgesearch.supernet.calibrate import recalibrate
from edgesearch.supernet.weights import SupernetWeights

NAMED = "stem8_w4-16_d2-1_r16"


@pytest.fixture
def call(chain):
    """Call the command in this process, on the copy of the finished run."""

    def call(*arguments):
        where = [str(chain.config), f"output_dir={chain.output_dir}"]
        return CliRunner().invoke(app, ["evaluate", *where, *arguments])

    return call


def refused(result, *messages):
    assert result.exit_code == 2, result.output
    assert result.stderr.count("error: required:") == 1
    assert "Traceback" not in result.stderr
    for message in messages:
        assert message in result.stderr


def results_of(chain):
    return json.loads((chain.output_dir / "evaluation/results.json").read_text("utf-8"))


def only_results(chain):
    (evaluation,) = results_of(chain)["evaluations"].values()
    return evaluation["results"]


def computed_here(chain, architecture, k):
    """Accuracies of a subnet, put together from the rooms' own functions."""
    record = json.loads((chain.output_dir / "supernet/stage.json").read_text("utf-8"))
    space = space_from_dict(record["config"]["space"])
    weights = SupernetWeights.load(chain.output_dir / "supernet/model.safetensors", space)
    network = weights.subnet(architecture).to(memory_format=torch.channels_last)
    pool = ImagePool(DataSettings("digits"), 1, 0)
    recalibrate(network, pool.sample(16, 0, 64), 64)
    images = pool.labelled(16)
    train, test = (
        compute_features(network, split, prepare=images.prepare)
        for split in (images.train, images.test)
    )
    features = (train, images.train_labels, test, images.test_labels)
    return knn_accuracy(*features, k=k), linear_accuracy(*features)


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    """A copy of the finished run that was evaluated, and the result. Do not write into it."""
    chain = finished[0].copied(tmp_path_factory.mktemp("evaluated"))
    done = chain.run("evaluate", "--architecture", NAMED, "--architecture", NAMED, "--json")
    assert done.returncode == 0, done.stderr
    return chain, json.loads(done.stdout)


class TestResult:
    def test_rows(self, evaluated):
        rows = evaluated[1]["rows"]
        assert [row["name"] for row in rows] == [
            *("winner w0", "named", "largest", "smallest"),
            *("largest, random weights", "raw pixels"),
        ]
        assert rows[1]["architecture"] == NAMED
        assert rows[2]["architecture"] == rows[4]["architecture"] == "stem8_w8-16_d2-2_r16"
        assert rows[3]["architecture"] == "stem4_w4-8_d1-1_r16"
        assert [rows[5][name] for name in ("architecture", "params", "macs")] == [None] * 3
        assert rows[2]["params"] > rows[1]["params"] > rows[3]["params"] > 0
        for row in rows:
            assert 0.2 < row["knn"] < 1
            assert 0.2 < row["linear"] < 1

    def test_the_winner_is_the_one_that_was_found(self, evaluated):
        winners = json.loads((evaluated[0].output_dir / "winners.json").read_text("utf-8"))
        (winner,) = winners["winners"]
        row = evaluated[1]["rows"][0]
        assert row["architecture"] == str(evaluated[0].space.from_choices(winner["architecture"]))
        assert (row["params"], row["macs"]) == (winner["params"], winner["macs"])

    def test_figures_are_those_of_the_subnet(self, evaluated):
        chain, result = evaluated
        knn, linear = computed_here(chain, chain.space.from_text(NAMED), 5)
        row = result["rows"][1]
        assert row["knn"] == pytest.approx(knn, abs=2 / 359)
        assert row["linear"] == pytest.approx(linear, abs=4 / 359)

    def test_the_summary_of_the_run_says_the_same(self, evaluated, finished):
        path = finished[0].output_dir / "summary/summary.json"
        summary = {row["name"]: row["knn"] for row in json.loads(path.read_text("utf-8"))}
        found = {row["name"]: row["knn"] for row in evaluated[1]["rows"]}
        assert summary == {name: found[name] for name in summary}

    def test_what_it_was_computed_from(self, evaluated):
        chain, result = evaluated
        assert (result["knn_k"], result["knn_temperature"]) == (5, 0.1)
        assert (result["train_images"], result["test_images"]) == (1438, 359)
        assert result["results_path"] == str(chain.output_dir / "evaluation/results.json")

    def test_for_people(self, evaluated, tmp_path):
        done = evaluated[0].copied(tmp_path).run("evaluate")
        assert done.returncode == 0, done.stderr
        head, *rows = done.stdout.splitlines()
        assert head.split() == ["kNN", "linear", "params", "MACs", "architecture"]
        assert rows[1].split()[0] == "largest"
        assert rows[1].split()[-1] == "stem8_w8-16_d2-2_r16"
        assert "accuracies on 359 images held out, from 1,438 with labels (kNN: 5 ne" in done.stdout


class TestAgain:
    @pytest.fixture
    def chain(self, evaluated, tmp_path):
        return evaluated[0].copied(tmp_path)

    def test_nothing_is_evaluated_twice(self, call, chain, evaluated):
        path = chain.output_dir / "evaluation/results.json"
        results = json.loads(path.read_text("utf-8"))
        (evaluation,) = results["evaluations"].values()
        evaluation["results"][NAMED]["knn"] = 0.125
        path.write_text(json.dumps(results), "utf-8")
        del evaluation["results"]["pixels"]
        before = path.read_bytes()
        again = json.loads(call("--architecture", NAMED, "--json").stdout)
        assert path.read_bytes() == before
        assert again["rows"][1]["knn"] == 0.125
        assert again["rows"][2:] == evaluated[1]["rows"][2:]

    def test_only_what_is_new_is_evaluated(self, call, chain):
        result = call("--architecture", "stem8_w4-8_d2-2_r16")
        assert result.exit_code == 0, result.output
        assert "what was evaluated before is not evaluated again" in result.stderr
        assert "evaluate 1/1: named: kNN" in result.stderr
        assert "stem8_w4-8_d2-2_r16" in only_results(chain)

    def test_other_settings_are_kept_apart(self, call, chain, evaluated):
        other = json.loads(call("evaluation.knn_k=300", "--json").stdout)
        assert other["rows"][1]["knn"] != evaluated[1]["rows"][2]["knn"]
        assert other["rows"][1]["linear"] == evaluated[1]["rows"][2]["linear"]
        assert len(results_of(chain)["evaluations"]) == 2
        before = results_of(chain)
        assert json.loads(call("--json").stdout)["rows"][0] == evaluated[1]["rows"][0]
        assert results_of(chain) == before

    def test_other_weights_are_evaluated(self, call, chain):
        record = json.loads((chain.output_dir / "supernet/stage.json").read_text("utf-8"))
        space = space_from_dict(record["config"]["space"])
        path = chain.output_dir / "supernet/model.safetensors"
        weights = SupernetWeights.load(path, space)
        for tensor in weights.query.values():
            tensor.mul_(-1)
        weights.save(path)
        result = call()
        assert result.exit_code == 0, result.output
        assert len(results_of(chain)["evaluations"]) == 2

    def test_fewer_images(self, call):
        result = call("evaluation.train_images=100", "evaluation.test_images=50", "--json")
        found = json.loads(result.stdout)
        assert (found["train_images"], found["test_images"]) == (100, 50)

    def test_more_neighbours_than_images_is_said(self, call):
        result = call("evaluation.knn_k=200", "evaluation.train_images=100", "--json")
        assert "evaluation.knn_k 200 is more than the 100 training images" in result.stderr
        assert json.loads(result.stdout)["knn_k"] == 100

    @pytest.mark.parametrize("content", ["{", "[]", '{"format": 2}', '{"format": 1}'])
    def test_damaged_results(self, call, chain, content):
        (chain.output_dir / "evaluation/results.json").write_text(content, "utf-8")
        refused(call(), "accuracies that `edgesearch evaluate` wrote", "Move the file away")

    def test_results_without_their_figures(self, call, chain):
        found = results_of(chain)
        (evaluation,) = found["evaluations"].values()
        evaluation["results"][NAMED] = {"knn": 1.0}
        (chain.output_dir / "evaluation/results.json").write_text(json.dumps(found), "utf-8")
        refused(call(), "the figures knn\n", "Move the file away")


def test_stopped_it_goes_on(chain, evaluated):
    path = chain.output_dir / "evaluation/results.json"
    done = chain.stopped("evaluate", signal.SIGINT, path.exists)
    assert done.returncode == 130, done.stderr
    assert "Run the same command again to go on." in done.stderr
    before = only_results(chain)
    assert 1 <= len(before) < 5
    done = chain.run("evaluate", "--json")
    assert done.returncode == 0, done.stderr
    rows = evaluated[1]["rows"]
    assert json.loads(done.stdout)["rows"] == [rows[0], *rows[2:]]
    assert only_results(chain).items() >= before.items()


def test_before_a_search_there_are_no_winners(call, chain):
    for name in ("winners.json", "search", "latency", "engines"):
        path = chain.output_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = call("--json")
    assert result.exit_code == 0, result.output
    assert "no winners among these: `edgesearch search` finds them" in result.stderr
    assert json.loads(result.stdout)["rows"][0]["name"] == "largest"


class TestRefused:
    def test_no_supernet(self, call, chain):
        shutil.rmtree(chain.output_dir / "supernet")
        refused(call(), "which `edgesearch pretrain` writes", "Run `edgesearch pretrain`")

    def test_supernet_of_another_space(self, call):
        refused(
            call("space.stem_widths=[4, 8, 12]"), "with stem_widths [4, 8, 12]", "pre-train this"
        )

    def test_winners_of_another_space(self, call, chain):
        path = chain.output_dir / "winners.json"
        winners = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps({**winners, "space_hash": "0"}), "utf-8")
        refused(call(), "winners of the space 'two stages'", "Run `edgesearch search`")

    @pytest.mark.parametrize("name", ["largest", "stem8_w4-16_d2-1"])
    def test_a_name_of_another_form(self, call, name):
        refused(call("--architecture", name), f"found: {name!r}", "in the form stem16_")

    def test_an_architecture_of_another_space(self, call, chain):
        result = call("--architecture", "stem8_w4-20_d2-1_r16")
        refused(result, "stage2_width 20 (one of 8, 16)", f"The nearest is {NAMED}.")
        assert not (chain.output_dir / "evaluation").exists()

    def test_images_without_labels(self, call, tmp_path):
        (tmp_path / "flat").mkdir()
        for number in range(20):
            Image.new("L", (16, 16), 3 * number).save(tmp_path / "flat" / f"{number}.png")
        flat = call("data.source=folder", f"data.root={tmp_path / 'flat'}")
        refused(flat, "class folders, for an accuracy", "data.holdout above 0")

    def test_nothing_held_out(self, call):
        refused(call("data.holdout=0"), "no test images with labels", "data.holdout above 0")

    def test_one_image_of_each_class(self, call, tmp_path):
        for split, count in (("train", 1), ("test", 2)):
            for number in range(2 * count):
                folder = tmp_path / "few" / split / "ab"[number % 2]
                folder.mkdir(parents=True, exist_ok=True)
                Image.new("L", (16, 16), 50 * number).save(folder / f"{number}.png")
        few = call("data.source=folder", f"data.root={tmp_path / 'few'}")
        refused(few, "two or more training images of a class")
