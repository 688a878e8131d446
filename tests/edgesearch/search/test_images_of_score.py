"""The images that a search scores on, and what they tell of real networks."""

import numpy as np
import pytest
import torch

from edgesearch.data.image_pool import ImagePool
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError
from edgesearch.export.deployable import make_deployable
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.search.agreement import make_agreement
from edgesearch.search.ranking import compare_domains, settle
from edgesearch.search.settings import SearchSettings
from edgesearch.supernet.weights import SupernetWeights

SPACE = ResNetSpace(
    "toy", "basic", "small", (4, 8), ((4, 8), (8, 16)), ((1, 2), (1, 2)), (8,), in_channels=1
)
SETTINGS = SearchSettings(images=128, calibration_images=32, batch_size=16)


@pytest.fixture(scope="module")
def weights(random_state):
    return SupernetWeights(SPACE, *random_state(SPACE, 0), *random_state(SPACE, 1))


@pytest.fixture(scope="module")
def pool():
    return ImagePool(DataSettings(source="digits"), 1, 0)


@pytest.fixture
def agreement(weights, pool):
    return make_agreement(weights, pool, SETTINGS)


def test_candidates_are_the_networks_that_are_exported(weights, pool, agreement):
    """Bit by bit: the same images in the same order and batches went into their statistics."""
    for architecture in (SPACE.smallest, SPACE.architecture(20)):
        exported = make_deployable(
            SPACE, weights, pool, architecture, "features", calibration_images=32, batch_size=16
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


def test_a_domain_with_fewer_images_than_asked_is_said(weights, tmp_path):
    from PIL import Image

    for number in range(40):
        Image.new("L", (8, 8), 6 * number).save(tmp_path / f"{number}.png")
    pool = ImagePool(DataSettings(source="folder", root=tmp_path), 1, 0)
    told = []
    agreement = make_agreement(weights, pool, SETTINGS, told.append)
    assert agreement.images == 40
    assert agreement.scores(SPACE.smallest).shape == (40,)
    (event,) = told
    assert event.message == (
        "40 images are fewer than search.calibration_images + search.images (160): 40 images are "
        "used for both calibration and scoring; add images, or lower both options"
    )


def test_hardly_any_images(weights, pool):
    message = "at least 4 images to score candidates on; found: 1437 images, and search.im"
    with pytest.raises(DataError, match=message.replace("1437", str(len(pool.train)))):
        make_agreement(weights, pool, SearchSettings(images=3))


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
    return DataSettings(source="folder", root=folder)


def test_two_domains_differ_or_the_report_says_that_they_agree(weights, tmp_path):
    """The verdict on the winners of two domains equals that of a bootstrap written out here."""
    settings = SearchSettings(images=256, calibration_images=64, batch_size=64)
    within = [a for a in SPACE if SPACE.macs(a) <= 100_000]
    agreements, winners = [], []
    for source in (DataSettings(source="digits"), stripes(tmp_path)):
        agreement = make_agreement(weights, ImagePool(source, 1, 0), settings)
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
