"""The page of a run: what it shows, what it says of what is missing, and how names are escaped."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest

import edgesearch
from edgesearch.report.neighbours import Neighbours, Picture, Query
from edgesearch.report.page import differences, make_page
from edgesearch.report.run_facts import read_run
from edgesearch.report.words import duration, millions, ms, size

MOST_BYTES = 6_000_000
ODD = "<script>alert('1')</script> \"x\" & ünï`y`"
PIXEL = "data:image/png;base64,iVBORw0KGgo="


class Page(HTMLParser):
    """The elements of a page, its text outside of scripts and styles, and the data in scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.data, self.ids, self.open = [], "", {}, [], []
        self.feed(page.decode())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        self.open = [tag, dict(attributes)]

    def handle_data(self, data):
        tag, attributes = self.open or ("", {})
        if tag == "script" and attributes.get("type") == "application/json":
            self.data[attributes.get("data-for", "trials")] = json.loads(data)
        elif tag not in ("script", "style"):
            self.text += data

    def handle_endtag(self, tag):
        self.open = []

    def words(self):
        return re.sub(r"\s+", " ", self.text)


@pytest.fixture(scope="module")
def facts(finished):
    return read_run(finished[0].api())


@pytest.fixture(scope="module")
def page(facts):
    return Page(make_page([facts]))


def test_needs_no_network_and_little_room(facts, page):
    content = make_page([facts])
    assert len(content) < MOST_BYTES
    for tag, attributes in page.tags:
        for name in ("src", "href", "action"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("#", "data:")), (tag, value)
    (policy,) = (a["content"] for _, a in page.tags if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_verdict_comes_first(finished, page):
    (winner,) = finished[0].read("winners.json")["winners"]
    found = winner["latency_ms"]["local-cpu"]
    words = page.words()
    headline = f"w0 takes {found['measured_p50']:.3f} ms on local-cpu, within the budget of 1000.0"
    assert words.index(headline) < words.index("candidates were scored")
    assert f"at most {found['measured_p95']:.3f} ms" in words
    for row in finished[0].read("summary/summary.json")["rows"]:
        assert f"{row['knn']:.1%}".replace("%", " %") in words


def test_shows_every_part_of_a_finished_run(finished, page):
    chain = finished[0]
    words, manifest = page.words(), chain.read("engines/w0/manifest.json")
    assert "What is missing" not in words
    assert len({*page.ids}) == len(page.ids)
    for name, about in manifest["files"].items():
        assert name in words
        assert any(a.get("data-text") == about["sha256"] for _, a in page.tags)
    for block in chain.space.blocks(chain.architecture(manifest["winner"]["architecture"])):
        assert block.key in words
    trials = [json.loads(line) for line in chain.lines("search/trials.jsonl")[1:]]
    rows = page.data["trials"]["rows"]
    assert sorted(row["agreement"] for row in rows) == pytest.approx(
        sorted(trial["agreement"] for trial in trials), rel=1e-5
    )
    assert {row["mark"] for row in rows} >= {"w0"}
    pareto = page.data["run0-pareto0"]
    assert len(pareto["data"][0]["x"]) == len(trials)
    assert sorted(row["macs"] for row in rows) == sorted(trial["macs"] for trial in trials)
    front = chain.read("search/pareto.json")["fronts"]["local-cpu"]
    assert pareto["data"][1]["x"] == pytest.approx([t["latency_ms"] for t in front], rel=1e-5)
    assert {"run0-predicted0", "run0-curve0", "run0-curve1"} <= {*page.data}
    for value in (chain.space.space_hash, "BSD-3-Clause", "scikit-learn's handwritten digits"):
        assert value in words


def test_block_times_sum_up_to_the_prediction(facts):
    (winner,) = facts.winners
    predicted_ms = facts.devices["local-cpu"].model.predict(winner.winner.architecture).median_ms
    total_ms = sum(block.latency_ms for block in winner.blocks) + winner.offset_ms
    assert total_ms == pytest.approx(predicted_ms)
    assert sum(block.share for block in winner.blocks) == pytest.approx(1)
    assert [*winner.parts] == ["stem", "layer1", "layer2", "head"]


def test_neighbours_are_training_images_and_held_out_images(facts):
    (winner,) = facts.winners
    found = winner.neighbours
    assert found.candidates == 1438
    assert found.tried == 359
    assert len(found.queries) == 8
    assert len({query.image.label for query in found.queries}) == 8
    share = found.same_class[1]  # of raw pixels, which hardly depend on the machine
    assert 0.9 < share < 1
    for query in found.queries:
        assert len(query.by_features) == len(query.by_pixels) == 6
        assert query.image.uri.startswith("data:image/png;base64,")
        assert query.image.uri not in {each.uri for each in query.by_features}


@pytest.mark.parametrize(
    ("kept", "says", "sections"),
    [
        (("latency",), ("There is no winner yet", "The supernet is not trained yet"), ["devices"]),
        (("supernet",), ("There is no latency table of local-cpu yet",), ["training"]),
        (
            ("latency", "supernet", "search", "winners.json"),
            ("is predicted to take", "The winners are not exported and measured yet"),
            ["search", "winners", "devices", "training"],
        ),
        ((), ("There is no winner yet", "Nothing was searched yet"), []),
    ],
    ids=["only a table", "only a training", "not exported", "nothing"],
)
def test_an_unfinished_run_shows_what_there_is(chain, tmp_path, kept, says, sections):
    folder = tmp_path / "part"
    folder.mkdir()
    for name in kept:
        (chain.output_dir / name).rename(folder / name)
    if "winners.json" in kept:  # as the search wrote it
        (folder / "winners.json").write_bytes((folder / "search" / "chosen.json").read_bytes())
    part = dataclasses.replace(chain, output_dir=folder)
    page = Page(make_page([read_run(part.api())]))
    words = page.words()
    assert "What is missing" in words
    for text in says:
        assert text in words
    shown = [each.removeprefix("run0-") for each in page.ids if each.startswith("run0-")]
    for section in ("search", "winners", "images", "devices", "training"):
        assert (section in shown) == (section in sections), section


def test_a_run_with_a_task_but_without_networks_says_so(chain):
    run = chain.api(finetune={"task": "classification"})
    facts = read_run(run)
    assert facts.task is None
    assert [each.command for each in facts.lacks if "fine-tuned" in each.text] == ["finetune"]
    assert read_run(chain.api()).task is None


def test_a_stopped_search_is_shown(chain):
    search = chain.output_dir / "search"
    for name in ("pareto.json", "pareto.png", "ranking.json", "chosen.json", "training.json"):
        (search / name).unlink()
    (chain.output_dir / "winners.json").unlink()
    record = chain.read("search/stage.json")
    chain.write("search/stage.json", {**record, "finished": False})
    text = (search / "trials.jsonl").read_text().splitlines(keepends=True)
    (search / "trials.jsonl").write_text("".join(text[:6]))
    page = Page(make_page([read_run(chain.api())]))
    assert "The search was stopped after 5 of 12 candidates" in page.words()
    assert "the best so far is" in page.words()
    assert len(page.data["trials"]["rows"]) == 5


def test_damaged_files_are_named(chain):
    (chain.output_dir / "engines" / "w0" / "subnet.ort").write_bytes(b"")
    (chain.output_dir / "summary" / "summary.json").write_text("{")
    words = Page(make_page([read_run(chain.api())])).words()
    assert "missing or changed: subnet.ort" in words
    assert "summary.json, which edgesearch run writes" in words
    assert "w0 takes" in words


def test_winners_of_another_device_are_named(chain):
    run = chain.api(device={"name": "my-board", "runtime": "onnxruntime"})
    page = Page(make_page([read_run(run)]))
    assert "winners for my-board; found: winners for local-cpu" in page.words()
    assert "There is no latency table of my-board yet" in page.words()
    assert page.data["trials"]["devices"] == ["local-cpu"], "the trials are of that device"


def test_odd_names_are_text(facts):
    (winner,) = facts.winners
    picture = Picture(PIXEL, ODD)
    query = Query(picture, (picture,), (picture,))
    found = Neighbours((query,), 1, (1.0, 0.5), 1)
    odd = dataclasses.replace(
        facts,
        name=ODD,
        winners=(dataclasses.replace(winner, neighbours=found),),
        provenance={ODD: ODD},
    )
    content = make_page([odd, facts])
    page = Page(content)
    assert page.text.count(ODD) >= 5
    scripts = [a for tag, a in page.tags if tag == "script"]
    usual_page = Page(make_page([dataclasses.replace(facts, name="usual"), facts]))
    usual = [a for tag, a in usual_page.tags if tag == "script"]
    assert len(scripts) == len(usual)
    assert b"<script>alert" not in content
    assert {a["alt"] for tag, a in page.tags if tag == "img"} >= {f"similar image of class {ODD}"}


def test_several_runs_are_compared(finished, facts):
    other = finished[0].api(search={"evaluations": 16}, pretrain={"epochs": 3})
    facts_of_other = dataclasses.replace(facts, name="other", config=other.config)
    found = {each.key: each.values for each in differences([facts, facts_of_other])}
    assert found == {"search.evaluations": ("12", "16"), "pretrain.epochs": ("2", "3")}
    page = Page(make_page([facts, facts_of_other]))
    words = page.words()
    assert words.index("2 runs compared") < words.index("w0 takes")
    assert "search.evaluations" in words
    assert {"run0-verdict", "run1-verdict", "compared-chart"} <= {*page.ids}
    assert len({*page.ids}) == len(page.ids)


def test_names_the_version(page):
    names = [a["content"] for _, a in page.tags if a.get("name") == "generator"]
    assert names == [f"edgesearch {edgesearch.__version__}"]


def test_figures_in_words():
    assert [ms(None), ms(float("inf")), ms(0.1814), ms(9.9996), ms(123.45)] == [
        "–",
        "–",
        "0.181 ms",
        "10.000 ms",
        "123.5 ms",
    ]
    assert [millions(None), millions(12), millions(8_998_912)] == ["–", "12", "9 M"]
    assert [size(12), size(681_234), size(1.5e9)] == ["12 bytes", "681 kB", "1.5 GB"]
    assert [duration(59), duration(125), duration(7260)] == ["59 s", "2 min 5 s", "2 h 1 min"]
