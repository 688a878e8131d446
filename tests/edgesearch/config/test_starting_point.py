"""The rules of `edgesearch init`, as a table."""

from dataclasses import replace

import pytest
import yaml

from edgesearch.config import load_config
from edgesearch.config.starting_point import Facts, Line, Wishes, batch_size, choose, write_yaml

PHOTOS = Facts(
    source="folder",
    root="photos",
    train=2240,
    classes=7,
    smallest_class=320,
    side=192,
    one_size=True,
    colour=True,
)
ICONS = replace(PHOTOS, side=32, colour=False)
WEIGHTS = "efficientnet-lite0"


def chosen(facts, **wishes):
    return {line.key: line.value for line in choose(facts, Wishes(**wishes))}


@pytest.mark.parametrize(
    ("facts", "key", "value"),
    [
        (PHOTOS, "space.name", "mobile_small"),
        (ICONS, "space.name", "resnet_small"),
        (replace(PHOTOS, weights=WEIGHTS), "space.name", "mobile_lite0"),
        (replace(ICONS, weights=WEIGHTS), "space.name", "resnet_small"),
        (PHOTOS, "space.resolutions", [128]),
        (replace(PHOTOS, side=100), "space.resolutions", [96]),
        (replace(PHOTOS, side=50), "space.resolutions", [96]),
        (replace(PHOTOS, side=None), "space.resolutions", [128]),
        (replace(PHOTOS, gpu=True, side=400), "space.resolutions", [160]),
        (replace(PHOTOS, gpu=True, side=400, weights=WEIGHTS), "space.resolutions", [224]),
        (replace(PHOTOS, colour=False), "space.in_channels", 1),
        (PHOTOS, "pretrain.epochs", 89),
        (replace(PHOTOS, train=500), "pretrain.epochs", 200),
        (replace(PHOTOS, train=100_000), "pretrain.epochs", 20),
        (replace(PHOTOS, weights=WEIGHTS), "pretrain.epochs", 0),
        (replace(PHOTOS, weights=WEIGHTS), "pretrain.init", WEIGHTS),
        (PHOTOS, "pretrain.batch_size", 128),
        (PHOTOS, "pretrain.lr", 0.03),
        (PHOTOS, "pretrain.queue_size", 512),
        (replace(PHOTOS, train=100_000), "pretrain.queue_size", 4096),
        (ICONS, "pretrain.augmentation.batched", True),
        (ICONS, "pretrain.augmentation.blur_probability", 0),
        (PHOTOS, "search.budgets.latency_of_largest", 0.5),
        (PHOTOS, "evaluation.knn_k", 20),
        (replace(PHOTOS, smallest_class=6), "evaluation.knn_k", 6),
        (replace(PHOTOS, host="board"), "device.host", "board"),
    ],
)
def test_rules(facts, key, value):
    assert chosen(facts)[key] == value


@pytest.mark.parametrize(
    ("facts", "key"),
    [
        (replace(PHOTOS, classes=0), "evaluation.knn_k"),
        (replace(PHOTOS, colour=False, weights=WEIGHTS), "space.in_channels"),
        (PHOTOS, "pretrain.augmentation.batched"),
        (PHOTOS, "device.host"),
        (ICONS, "space.resolutions"),
    ],
)
def test_what_needs_no_line_has_none(facts, key):
    assert key not in chosen(facts)


@pytest.mark.parametrize(
    ("latency_ms", "resolution"),
    [(0.5, 96), (3.0, 128), (4.0, 160), (7.0, 192), (90.0, 192)],
)
def test_the_resolution_follows_the_budget_where_latencies_are_known(latency_ms, resolution):
    facts = replace(PHOTOS, weights=WEIGHTS, largest_ms=((128, 3.2),))
    values = chosen(facts, latency_ms=latency_ms)
    assert values["space.resolutions"] == [resolution]
    assert values["search.budgets.latency_ms"] == latency_ms


PLACES = replace(PHOTOS, classes=0, objects=3, labels="coco", labels_words="boxes", side=240)


@pytest.mark.parametrize(
    ("task", "facts", "head", "epochs", "batch"),
    [
        ("classification", replace(PHOTOS, weights=WEIGHTS), "linear", 11, 64),
        ("classification", PHOTOS, "linear", 23, 64),
        ("detection", replace(PLACES, train=205, weights=WEIGHTS), "ssdlite", 60, 16),
        ("detection", replace(PLACES, train=6), "ssdlite", 120, 2),
        ("segmentation", replace(PLACES, train=532, weights=WEIGHTS), "lraspp", 30, 16),
        ("segmentation", replace(PLACES, train=10**6, weights=WEIGHTS), "lraspp", 10, 16),
    ],
)
def test_a_task_has_its_lines(task, facts, head, epochs, batch, tmp_path):
    lines = choose(facts, Wishes(task=task))
    values = {line.key: line.value for line in lines}
    assert (values["finetune.task"], values["finetune.head"]) == (task, head)
    assert (values["finetune.epochs"], values["finetune.batch_size"]) == (epochs, batch)
    assert ("finetune.validation" in values) == (task == "classification")
    assert values.get("search.task") == (None if task == "classification" else task)
    assert values.get("data.labels") == (None if task == "classification" else "coco")
    path = tmp_path / "edgesearch.yaml"
    path.write_text(write_yaml(lines, ["head"]))
    assert load_config(str(path)).finetune.head == head


def test_without_a_task_there_is_no_fine_tuning():
    assert not [key for key in chosen(PHOTOS) if key.startswith("finetune")]


@pytest.mark.parametrize(
    ("facts", "resolution"),
    [
        (PLACES, 160),
        (replace(PLACES, weights=WEIGHTS), 192),
        (replace(PLACES, weights=WEIGHTS, gpu=True, side=400), 224),
        (replace(PLACES, weights=WEIGHTS, side=100), 96),
    ],
)
def test_places_need_more_pixels(facts, resolution):
    assert chosen(facts, task="detection")["space.resolutions"] == [resolution]


def test_long_images_are_not_stretched():
    assert chosen(PLACES, task="detection")["finetune.fit"] == "stretch"
    assert chosen(replace(PLACES, ratio=2.5), task="detection")["finetune.fit"] == "letterbox"


@pytest.mark.parametrize("images", [4, 5, 31, 100, 2240, 10**6])
@pytest.mark.parametrize("gpu", [False, True])
def test_a_batch_is_never_larger_than_the_images(images, gpu):
    batch = batch_size(images, gpu)
    assert 2 <= batch <= images
    assert batch * 16 <= images or batch == 2
    assert batch & (batch - 1) == 0


@pytest.mark.parametrize("train", [4, 17, 300, 2240, 60_000])
@pytest.mark.parametrize("facts", [PHOTOS, ICONS, replace(PHOTOS, weights=WEIGHTS)])
def test_every_choice_is_a_valid_configuration(facts, train, tmp_path):
    facts = replace(facts, train=train, smallest_class=max(1, train // 9))
    path = tmp_path / "edgesearch.yaml"
    path.write_text(write_yaml(choose(facts, Wishes()), ["head"]))
    config = load_config(str(path))
    assert config.data.root.name == "photos"
    epochs = config.pretrain.epochs
    assert epochs == 0 or config.pretrain.batch_size <= train


@pytest.mark.parametrize(
    "text",
    [
        *("no", "null", "1e3", "a: b", "#1", "ä ö", "x'y", 'q"r', "2024-01-01", "~", "a\\b", "-"),
        *("😀 日本", "a\nb", "\udce4"),
    ],
)
def test_texts_stay_texts(text):
    written = write_yaml([Line("a", 1, "why"), Line("b.c", text, "why"), Line("b.d", None, "")], [])
    assert yaml.safe_load(written) == {"a": 1, "b": {"c": text, "d": None}}


def test_letters_of_any_language_stay_readable():
    assert 'a: "Meine Bilder äöü 日本 😀"' in write_yaml(
        [Line("a", "Meine Bilder äöü 日本 😀", "")], []
    )


def test_each_line_says_why():
    written = write_yaml(choose(PHOTOS, Wishes()), ["A head."], ["A foot."])
    values = [line for line in written.splitlines() if ":" in line and not line.endswith(":")]
    assert all("  # " in line for line in values)
    assert written.startswith("# A head.\n\noutput_dir: ")
    assert written.endswith("\n\n# A foot.\n")
