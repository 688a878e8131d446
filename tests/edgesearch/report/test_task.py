"""The section on fine-tuned networks: figures, confusion, predictions on held-out images."""

import dataclasses
import json

import pytest

import edgesearch
from edgesearch.report.page import make_page
from edgesearch.report.read_task import read_task
from edgesearch.report.run_facts import read_run
from edgesearch.report.task_facts import Confusion

METRICS = {"classification": "accuracy", "detection": "map_50", "segmentation": "mean_iou"}


def test_figures_are_those_of_the_training(tuned):
    facts = read_task(tuned)
    (network,) = facts.networks
    values = json.loads((tuned.files.finetune / "results.json").read_text("utf-8"))
    task = tuned.config.finetune.task
    assert (facts.task, facts.metric, facts.problem) == (task, METRICS[task], "")
    found = values["rows"][0]["figures"]
    assert next(iter(network.figures)) == facts.metric
    assert network.figures == {key: found[key] for key in found if " " not in key}
    assert len(network.examples) == len(tuned.open_images().test)
    if task == "classification":
        confusion = network.confusion
        right = sum(row[place] for place, row in enumerate(confusion.counts))
        assert right / confusion.images == pytest.approx(found["accuracy"])
        assert [*network.of_classes] == ["a", "b"]
    else:
        assert [*network.of_classes] == list(facts.classes)
        for name, figures in network.of_classes.items():
            assert {f"{key} {name}": value for key, value in figures.items()}.items() <= (
                found.items()
            )


def test_examples_show_what_is_there(tuned):
    (network,) = read_task(tuned).networks
    for each in network.examples:
        assert each.uri.startswith("data:image/jpeg;base64,")
        assert each.ratio == 1
    if tuned.config.finetune.task == "detection":
        for each in network.examples:
            (box,) = each.truth
            assert (box.width, box.height) == (pytest.approx(0.5), pytest.approx(0.5))
            assert box.label in ("red", "green")
            assert all(found.score >= 0.3 for found in each.boxes)
    if tuned.config.finetune.task == "segmentation":
        assert all(each.maps[0] != each.uri for each in network.examples)


def test_the_page_shows_them(tuned):
    page = make_page([read_run(tuned)]).decode()
    task = tuned.config.finetune.task
    assert f"Networks for {task}" in page
    assert 'href="#run0-task"' in page
    assert ("What is taken for what" in page) == (task == "classification")
    assert page.count("<svg viewBox") == (
        len(tuned.open_images().test) if task == "detection" else 0
    )


def test_figures_stay_where_predictions_cannot_be_made(tuned):
    (network,) = read_task(tuned).networks
    weights = tuned.files.finetune / network.about["architecture"] / "model.safetensors"
    aside = weights.with_suffix(".aside")
    weights.rename(aside)
    try:
        facts = read_task(tuned)
        page = make_page([read_run(tuned)]).decode()
    finally:
        aside.rename(weights)
    assert facts.networks[0].figures == network.figures
    assert not facts.networks[0].examples
    assert "edgesearch finetune" in facts.problem
    assert "No predictions are shown" in page


def test_another_task_in_the_configuration_is_told(tuned):
    settings = tuned.config.finetune.model_copy(update={"head": "another"})
    config = tuned.config.model_copy(update={"finetune": settings})
    facts = read_task(edgesearch.Run(config))
    assert facts.problem.endswith("another")
    assert facts.networks[0].figures


def test_of_many_classes_only_mistakes_are_shown():
    classes = tuple(f"class {number}" for number in range(25))
    counts = tuple(tuple(3 * (a == b) + (b == a + 1) for b in range(25)) for a in range(25))
    confusion = Confusion(classes, counts, 99)
    assert not confusion.is_small
    assert confusion.mistakes[0] == ("class 0", "class 1", 1, 0.25)
    assert len(confusion.mistakes) == 12
    assert confusion.of_classes["class 0"] == {"recall": 0.75, "precision": 1.0, "images": 4}
    assert dataclasses.replace(confusion, classes=classes[:20]).is_small
