"""The score of a search: its images, their number, and how sure its order is."""

import json

import numpy as np
import pytest
import torch

from edgesearch.data.image_pool import ImagePool
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError
from edgesearch.export.deployable import make_deployable
from edgesearch.families import space_from_dict
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.run.layout import Layout
from edgesearch.search.agreement import ScoreOptions
from edgesearch.search.budgets import Budgets
from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.ranking import compare_domains, settle
from edgesearch.search.scoring import (
    choose_images,
    make_agreement,
    settle_winners,
)
from edgesearch.search.trial_log import Trial
from edgesearch.stages.search import SearchImages
from edgesearch.supernet.projector import Projector
from edgesearch.supernet.supernet import Supernet
from edgesearch.supernet.weights import SupernetWeights

SPACE = ResNetSpace(
    "toy", "basic", "small", (4, 8), ((4, 8), (8, 16)), ((1, 2), (1, 2)), (8,), in_channels=1
)
LOOKED_AT = SearchImages(images=128, calibration_images=32, batch_size=16)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    states = []
    for _ in range(2):
        backbone = Supernet(SPACE).backbone
        for name, parameter in backbone.named_parameters():
            if "bn" in name:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
        head = Projector(backbone.feature_dim, 16, 8, bn=True)
        states += [backbone.state_dict(), head.state_dict()]
    return SupernetWeights(SPACE, *states)


@pytest.fixture(scope="module")
def pool():
    return ImagePool(DataSettings("digits"), 1, 0)


@pytest.fixture
def told():
    return []


@pytest.fixture
def agreement(weights, pool):
    return make_agreement(weights, pool, LOOKED_AT, ScoreOptions())


@pytest.fixture(scope="module")
def feasible():
    return FeasibleSet(SPACE, np.ones(SPACE.size), Budgets(), 1.0)


def trials_of(agreement, feasible):
    found = [
        Trial(architecture, agreement(architecture), 1.0, 1.0, 1.0)
        for architecture in list(SPACE)[::6]
    ]
    return sorted(found, key=lambda trial: -trial.agreement)


def test_candidates_are_the_networks_that_are_exported(weights, pool, agreement):
    """Bit by bit: the same images in the same order and batches went into their statistics."""
    for architecture in (SPACE.smallest, SPACE.architecture(20)):
        exported = make_deployable(
            SPACE,
            weights,
            pool,
            architecture,
            "features",
            calibration_images=LOOKED_AT.calibration_images,
            batch_size=LOOKED_AT.batch_size,
        )
        for _ in range(2):  # the second time its statistics are known
            scored = agreement.subnet(architecture)[0].state_dict()
            theirs = exported.network.state_dict()
            assert scored.keys() == theirs.keys()
            assert all(torch.equal(scored[name], theirs[name]) for name in theirs)


def test_images_follow_those_of_the_calibration(pool, agreement):
    assert agreement.images == 128
    found = torch.cat(
        [agreement.images_at(8, first, last) for first, last in ((0, 100), (100, 128))]
    )
    assert torch.equal(found, pool.sample(8, 0, 160)[32:])
    assert torch.equal(agreement.calibration_at(8), pool.sample(8, 0, 160)[:32])


def test_a_domain_with_fewer_images_than_asked_is_said(weights, told, tmp_path):
    from PIL import Image

    for number in range(40):
        Image.new("L", (8, 8), 6 * number).save(tmp_path / f"{number}.png")
    pool = ImagePool(DataSettings("folder", tmp_path), 1, 0)
    agreement = make_agreement(weights, pool, LOOKED_AT, ScoreOptions(), told.append)
    assert agreement.images == 40
    assert agreement.scores(SPACE.smallest).shape == (40,)
    (event,) = told
    assert event.message == (
        "40 images are fewer than search.calibration_images + search.images (160): candidates are "
        "scored on 40 images that calibrate them, too; add images, or set both smaller"
    )


def test_hardly_any_images(weights, pool):
    message = "at least 4 images to score candidates on; found: 1437 in the domain, and search.im"
    with pytest.raises(DataError, match=message.replace("1437", str(len(pool.train)))):
        make_agreement(weights, pool, SearchImages(images=3), ScoreOptions())


class TestNumberOfImages:
    SCORE = {"search.images": 128}

    def test_is_found_and_kept(self, agreement, feasible, told, tmp_path):
        layout = Layout(tmp_path)
        choose_images(agreement, agreement.all_scores, feasible, layout, self.SCORE, 0, told.append)
        kept = json.loads(layout.images_needed.read_text("utf-8"))
        found = agreement.images
        assert found == kept["images"]
        assert 16 <= found <= 128
        assert told[0].message.startswith(
            f"{found} of at most 128 images tell the candidates apart"
        )

    def keep(self, path, score):
        path.parent.mkdir(parents=True)
        kept = {"images": 48, "reliability": 0.5, "score": score}
        path.write_text(json.dumps(kept), "utf-8")

    @pytest.mark.parametrize("folder", ["search", "search.1"])
    def test_is_kept_by_a_search_that_scores_alike(
        self, agreement, feasible, told, tmp_path, folder
    ):
        layout = Layout(tmp_path)
        self.keep(tmp_path / folder / "images.json", self.SCORE)
        choose_images(agreement, agreement.all_scores, feasible, layout, self.SCORE, 0, told.append)
        assert agreement.images == 48
        assert "48 of at most 128 images tell the candidates apart (reliability 0.500)" in (
            told[0].message
        )
        assert json.loads(layout.images_needed.read_text("utf-8"))["images"] == 48

    def test_of_another_score_is_not_taken_over(self, agreement, feasible, told, tmp_path):
        self.keep(tmp_path / "search.1" / "images.json", {"search.images": 64})
        choose_images(
            agreement, agreement.all_scores, feasible, Layout(tmp_path), self.SCORE, 0, told.append
        )
        assert "(reliability 0.500)" not in told[0].message


class TestWinners:
    def settled(self, agreement, feasible, told, folder):
        agreement.images = 16
        trials = trials_of(agreement, feasible)
        layout = Layout(folder)
        (ranked,) = settle_winners(
            agreement, agreement.all_scores, feasible, trials, 1, 2, 128, layout, told.append
        )
        return trials, *ranked

    def test_the_best_are_ranked_anew_and_the_rest_stays(self, agreement, feasible, told, tmp_path):
        trials, ranked, ranking = self.settled(agreement, feasible, told, tmp_path)
        assert {t.architecture for t in ranked[:3]} == {t.architecture for t in trials[:3]}
        assert ranked[3:] == trials[3:]
        assert [t.agreement for t in ranked[:3]] == sorted(
            (t.agreement for t in ranked[:3]), reverse=True
        )
        for trial in ranked[:3]:
            figures = agreement.scores(trial.architecture, ranking.images)
            assert trial.agreement == pytest.approx(float(figures.mean()), abs=1e-9)
        kept = json.loads(Layout(tmp_path).ranking.read_text("utf-8"))
        assert kept["rankings"] == [json.loads(json.dumps(ranking.to_dict()))]
        assert kept["images"] == ranking.images
        assert kept["settled"] == ranking.settled
        assert f"compared on {ranking.images} images: their order is " in told[-1].message

    def test_is_the_same_each_time(self, agreement, weights, pool, feasible, told, tmp_path):
        """As in a search that was stopped: nothing is known of what was scored before."""
        first = self.settled(agreement, feasible, told, tmp_path)
        another = make_agreement(weights, pool, LOOKED_AT, ScoreOptions())
        assert self.settled(another, feasible, told, tmp_path) == first

    def test_each_budget_has_a_ranking(self, agreement, told, tmp_path):
        latency_ms = np.arange(SPACE.size) / 100
        feasible = FeasibleSet(SPACE, latency_ms, Budgets(latency_ms=(0.2, 9.0)), 1.5)
        agreement.images = 16
        trials = trials_of(agreement, feasible)
        layout = Layout(tmp_path)
        small, large = settle_winners(
            agreement, agreement.all_scores, feasible, trials, 1, 1, 64, layout, told.append
        )
        assert {t.architecture for t in large.trials} == {t.architecture for t in trials}
        assert {t.architecture for t in small.trials} == {
            t.architecture for t in trials if t.architecture in feasible.parts[0]
        }
        assert len(json.loads(layout.ranking.read_text("utf-8"))["rankings"]) == 2


def stripes(folder, count=400):
    """A domain that has nothing of digits: waves of all directions and lengths."""
    from PIL import Image

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16] / 16
    for number in range(count):
        angle, waves = rng.uniform(0, np.pi), rng.uniform(2, 7)
        wave = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)))
        noise = rng.normal(0, 0.3, (16, 16))
        pixels = (127 + 80 * (wave + noise)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return DataSettings("folder", folder)


def test_two_domains_differ_or_the_report_says_that_they_agree(finished, tmp_path):
    """The verdict on a trained supernet's winners equals that of a bootstrap written out here."""
    chain = finished[0]
    record = json.loads((chain.output_dir / "supernet/stage.json").read_text("utf-8"))
    space = space_from_dict(record["config"]["space"])
    weights = SupernetWeights.load(chain.output_dir / "supernet/model.safetensors", space)
    looked_at = SearchImages(images=256, calibration_images=64, batch_size=64)
    within = [a for a in space if space.macs(a) <= 700_000]
    agreements, winners = [], []
    for source in (DataSettings("digits"), stripes(tmp_path)):
        agreement = make_agreement(weights, ImagePool(source, 1, 0), looked_at, ScoreOptions())
        ranking = settle(agreement.all_scores, within, 1, first=64, most=256)
        agreements.append(agreement)
        winners.append(ranking.leaders[0].architecture)
    found = compare_domains(*(a.scores for a in agreements), tuple(winners))
    rng, preferred = np.random.default_rng(0), []
    for agreement, own, other in zip(agreements, winners, winners[::-1], strict=True):
        figures = (agreement.scores(own) - agreement.scores(other)).numpy()
        means = figures[rng.integers(0, 256, (4000, 256))].mean(axis=1)
        preferred.append(float(np.quantile(means, 0.0125)))
    assert found.winners == tuple(winners)
    assert [p.low for p in found.preferences] == pytest.approx(preferred, abs=2e-4)
    assert found.differ == (min(preferred) > 0)
    assert ("the domains differ: " if found.differ else "the domains agree") in str(found)
