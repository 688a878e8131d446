"""Scores with a reference that is not of the supernet: public weights, a teacher, labels."""

import shutil
from contextlib import nullcontext

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from edgesearch.errors import CheckpointError, DataError, StageError, UserError
from edgesearch.families import space_from_dict
from edgesearch.run import room
from edgesearch.run.room import disk_needed
from edgesearch.search.label_votes import label_score
from edgesearch.search.similarity import (
    kernel_alignment,
    regression_on_features,
    relation_of_images,
)
from edgesearch.stages.pretrain import check_pretrain
from edgesearch.stages.scorer import make_scorer

TEACHER_SIZE = 12


class Brightness(nn.Module):
    """A teacher: the mean of each quarter of an image."""

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images[:, :1], 2).flatten(1)


@pytest.fixture
def teacher(tmp_path):
    path = tmp_path / "teacher.pt"
    torch.jit.script(Brightness()).save(path)
    return {"torchscript": str(path), "size": TEACHER_SIZE, "mean": [0.0] * 3, "std": [1.0] * 3}


@pytest.fixture
def public(empty, tmp_path):
    """Public weights of a member of the space."""
    space = empty.api(space={"stem_stride": 1}).space
    member = {"stem_widths": [4], "stage_widths": [[8], [8]], "stage_depths": [[1], [2]]}
    source = space_from_dict({**space.to_dict(), **member})
    torch.manual_seed(5)
    network = source.make_network(source.blocks(source.largest))
    network.train()(torch.rand(64, 1, 16, 16))
    path = tmp_path / "public.pth"
    torch.save(network.state_dict(), path)
    return path, network.eval()


@pytest.fixture
def untrained(empty, public, teacher):
    """A run whose supernet is public weights as they are, with options of the search."""

    def untrained(teacher=teacher, epochs=0, **search):
        pretrain = {
            **{"init": str(public[0]), "epochs": epochs, "warmup_epochs": 0},
            **{"method": "distillation", "teacher": teacher, "queue_size": None},
            **{"projector_hidden_dim": None, "projector_bn": None},
        }
        return empty.api(space={"stem_stride": 1}, pretrain=pretrain, search=search)

    return untrained


def scorer_of(run):
    run.pretrain()
    return make_scorer(run, run.load_weights(), run.open_images(), run.report)


def features_of(run, scorer, architecture):
    with torch.no_grad():
        return scorer.subnet(architecture)[0](scorer.images_at(16, 0, scorer.images))


@pytest.mark.parametrize(
    ("score", "compare"),
    [
        ("cka", kernel_alignment),
        ("relation", relation_of_images),
        ("regression", regression_on_features),
    ],
)
def test_public_weights_as_they_are(untrained, public, score, compare):
    run = untrained(reference="init", score=score)
    scorer = scorer_of(run)
    with torch.no_grad():
        expected = public[1](scorer.images_at(16, 0, 64))  # with its own statistics
    compared = compare(features_of(run, scorer, run.space.smallest), expected).double()
    torch.testing.assert_close(scorer.scores(run.space.smallest), compared, atol=1e-3, rtol=0)
    assert scorer.is_foreign


def test_a_teacher_embeds_whole_images_once(untrained, teacher):
    run = untrained(reference="teacher")
    assert run.config.search.score == "regression"
    scorer = scorer_of(run)
    pixels = run.open_images().pixels(TEACHER_SIZE, 64, 64)
    rows = nn.functional.normalize(Brightness()(pixels.float().expand(-1, 3, -1, -1) / 255), dim=1)
    rows = rows.half().float()  # as they are kept
    expected = regression_on_features(features_of(run, scorer, run.space.smallest), rows)
    torch.testing.assert_close(
        scorer.scores(run.space.smallest), expected.double(), atol=1e-3, rtol=0
    )
    kept = run.files.whole_images / "teacher.f16"
    assert not (run.files.output_dir / "teacher" / "teacher.f16").exists()  # nothing was trained
    written = kept.stat().st_mtime_ns
    assert torch.equal(scorer_of(run).scores(run.space.smallest), scorer.scores(run.space.smallest))
    assert kept.stat().st_mtime_ns == written


def test_a_disk_without_room_for_the_embeddings(untrained, monkeypatch):
    run = untrained(epochs=1)
    crops = run.config.pretrain.teacher.crops
    embeddings = len(run.open_images().train) * crops * 4 * 2  # four values of two bytes
    for free, missing in ((-1, 1), (0, 0)):
        room_for_all = shutil.disk_usage("/")._replace(free=disk_needed(run) + embeddings + free)
        monkeypatch.setattr(room.shutil, "disk_usage", lambda path, found=room_for_all: found)
        refused = pytest.raises(StageError, match=r"MiB of a teacher's embeddings in .*; found: ")
        with refused if missing else nullcontext():
            check_pretrain(run, anew=False)
    check_pretrain(untrained(epochs=0), anew=False)  # nothing is embedded


def test_labels(untrained):
    run = untrained(score="labels", label_images=200)
    scorer, images = scorer_of(run), run.open_images()
    labels = images.train.labels[images._order(len(images.train))[:200]]
    assert scorer.images == 200
    expected = label_score(features_of(run, scorer, run.space.largest), labels)
    torch.testing.assert_close(scorer.scores(run.space.largest), expected.double())
    assert scorer_of(untrained(score="labels")).images == 64  # search.images


def test_the_whole_chain(untrained, teacher):
    """From profile to the final comparison with a teacher, then by other scores alone."""
    run = untrained(epochs=1, reference="teacher")
    rows = {row.name: row for row in run.run().summary}
    assert rows["largest"].agreement is not None  # the reference is none of these networks
    assert run.search().skipped
    ranked = {score.score: score.tau.value for score in run.rank().scores}
    assert ranked["regression to the teacher"] == ranked["agreement"] != ranked["regression"]
    assert {"relation to the teacher", "cka to the init", "relation to the init"} <= set(ranked)
    for other in ({"reference": "init"}, {"score": "labels"}):
        assert not untrained(epochs=1, **other).search().skipped
    told = []
    run = untrained({**teacher, "mean": [0.5] * 3}, epochs=1, reference="teacher")
    run.report = lambda event: told.append(event.message)
    run.pretrain()
    assert not run.search().skipped  # scores of another teacher are not used again
    assert "pretrain.teacher" in "".join(told)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"search": {"reference": "teacher"}}, "pretrain.teacher is required by search.reference"),
        ({"search": {"reference": "init"}}, "pretrain.init is required by search.reference init"),
        (
            {"search": {"reference": "teacher", "task": "segmentation"}},
            "key, largest or init is required for the task segmentation",
        ),
        (
            {"search": {"reference": "init", "score": "cosine"}},
            "cka, regression or labels",
        ),
        ({"search": {"score": "labels", "task": "detection"}}, "cosine, relation or cka"),
        ({"search": {"score": "regression", "task": "detection"}}, "cosine, relation or cka"),
        ({"search": {"score": "labels", "label_images": 3}}, "greater than or equal to 4"),
    ],
)
def test_refused_with_the_configuration(empty, sections, message):
    with pytest.raises(ValidationError, match=message):
        empty.api(**sections)


class TestRefusedBeforeAnythingLong:
    def refused(self, run, error, message):
        with pytest.raises(error, match=message):
            run.run()
        assert not run.files.output_dir.joinpath("latency").exists()
        assert not run.files.supernet.exists()

    def test_labels_without_labels(self, empty, tmp_path, images):
        from PIL import Image

        (tmp_path / "flat").mkdir()
        for number in range(90):
            Image.new("L", (16, 16), number).save(tmp_path / "flat" / f"{number}.png")
        run = empty.api(
            data={"source": "folder", "root": str(tmp_path / "flat")},
            search={"score": "labels"},
            pretrain={"queue_size": 64},
        )
        self.refused(run, DataError, "training images of two classes or more, for search.score")

    def test_more_labels_than_there_are(self, empty):
        run = empty.api(search={"score": "labels", "label_images": 5000})
        self.refused(run, DataError, "search.label_images of at most 1438.*; found: 5000")

    def test_a_teacher_that_is_not_there(self, untrained, teacher):
        run = untrained({**teacher, "torchscript": "nowhere.pt"}, reference="teacher")
        self.refused(run, UserError, "no such file")

    def test_public_weights_that_are_not_there(self, empty):
        run = empty.api(pretrain={"init": "nowhere.pth"}, search={"reference": "init"})
        self.refused(run, CheckpointError, "no such file")
