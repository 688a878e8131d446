"""The scores side by side."""

import pytest
import torch

from edgesearch.search.agreement import Agreement
from edgesearch.search.score_variants import NAMES, ScoreVariants, contrastive_loss
from edgesearch.search.settings import SearchSettings
from edgesearch.supernet.weights import SupernetWeights


@pytest.fixture(scope="module")
def weights(space, random_state):
    return SupernetWeights(space, *random_state(space, 0), *random_state(space, 1))


@pytest.fixture(scope="module")
def make(weights):
    images = torch.rand(48, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def make(**options):
        return Agreement(
            weights,
            lambda _, a, b: images[a:b],
            lambda _: images,
            16,
            48,
            SearchSettings(**options),
        )

    return make


def test_each_is_the_agreement_of_its_name(space, make):
    architecture, agreement = space.architecture(57), make()
    found = ScoreVariants(agreement)(architecture, agreement.subnet(architecture))
    assert tuple(found) == NAMES
    expected = {
        "cosine": make(),
        "relation": make(score="relation"),
        "cka": make(score="cka"),
        "regression": make(score="regression"),
        "self-similarity": make(task="detection"),
        "relation of places": make(task="segmentation", score="relation"),
    }
    for name, of_options in expected.items():
        assert found[name] == pytest.approx(of_options(architecture), abs=1e-6)


def test_not_recalibrated_uses_the_shared_statistics(space, weights, make):
    architecture, agreement = space.architecture(57), make()
    plain = agreement.scores_of(weights.embedder(architecture), 16)
    found = ScoreVariants(agreement)(architecture, agreement.subnet(architecture))
    assert found["cosine, not recalibrated"] == pytest.approx(float(plain.mean()), abs=1e-6)
    assert abs(found["cosine, not recalibrated"] - found["cosine"]) > 1e-4


def test_contrastive_loss_by_hand():
    first, second = (
        torch.nn.functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(s)))
        for s in (0, 1)
    )
    for i, loss in enumerate(contrastive_loss(first, second)):
        exponentials = [float(first[i] @ second[j] / 0.2) for j in range(5)]
        total = sum(2.718281828**e for e in exponentials)
        expected = -torch.tensor(2.718281828 ** exponentials[i] / total).log()
        assert float(loss) == pytest.approx(float(expected), abs=1e-4)
