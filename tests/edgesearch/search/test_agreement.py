"""The label-free score."""

import pytest
import torch

from edgesearch.search import Agreement
from edgesearch.supernet import Projector, Supernet, SupernetWeights

IMAGES = 48


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Several threads take longer on networks as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_state(space, seed):
    """A backbone and a projector with weights that leave no block without effect."""
    torch.manual_seed(seed)
    backbone = Supernet(space).backbone
    for name, parameter in backbone.named_parameters():
        if "bn" in name or "downsample.1" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    projector = Projector(backbone.feature_dim, 16, 8, bn=True)
    return backbone.state_dict(), projector.state_dict()


@pytest.fixture(scope="module")
def weights(space):
    query, key = random_state(space, 0), random_state(space, 1)
    return SupernetWeights(space, *query, *key)


@pytest.fixture(scope="module")
def images_at():
    images = torch.rand(IMAGES, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return lambda resolution: images


@pytest.fixture
def agreement(weights, images_at):
    return Agreement(weights, images_at, images_at, batch_size=16)


def test_the_reference_agrees_with_itself(weights, space, agreement):
    assert agreement.of_network(weights.reference(), space.largest.resolution) == pytest.approx(
        1.0, abs=1e-5
    )


def test_trained_and_averaged_weights_that_are_equal_agree(weights, space, images_at):
    key = weights.key, weights.key_projector
    same = SupernetWeights(space, *key, *key)
    assert Agreement(same, images_at, images_at, 16)(space.largest) == pytest.approx(1.0, abs=1e-5)


def test_is_a_cosine_and_differs_between_architectures(space, agreement):
    found = [agreement(space.architecture(index)) for index in range(0, space.size, 31)]
    assert all(-1 <= value <= 1 for value in found)
    assert len(set(found)) == len(found)


def test_opposite_embeddings_disagree(weights, space, agreement):
    network = weights.reference()
    network.append(_Opposite())
    assert agreement.of_network(network, 16) == pytest.approx(-1.0, abs=1e-5)


class _Opposite(torch.nn.Module):
    def forward(self, embeddings):
        return -embeddings


def test_equals_the_mean_cosine_by_hand(weights, space, images_at, agreement):
    architecture = space.architecture(57)
    candidate, reference = weights.embedder(architecture), weights.reference()
    for network in (candidate, reference):
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        network.train()
        with torch.no_grad():
            for batch in images_at(16).split(16):
                network(batch)
        network.eval()
    with torch.no_grad():
        pairs = zip(candidate(images_at(16)), reference(images_at(16)), strict=True)
        cosines = [torch.nn.functional.cosine_similarity(a, b, dim=0) for a, b in pairs]
    assert agreement(architecture) == pytest.approx(float(sum(cosines) / IMAGES), abs=1e-5)


def test_does_not_depend_on_what_was_scored_before(weights, space, images_at, agreement):
    architecture = space.architecture(120)
    first = agreement(architecture)
    for other in (space.largest, space.smallest):
        agreement(other)
    assert agreement(architecture) == first
    assert Agreement(weights, images_at, images_at, 16)(architecture) == first


def test_leaves_weights_and_random_state_alone(weights, space, agreement):
    before = {name: tensor.clone() for name, tensor in weights.query.items()}
    state = torch.random.get_rng_state()
    agreement(space.architecture(3))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(weights.query[name], tensor) for name, tensor in before.items())


def test_statistics_come_from_the_calibration_images(weights, space, images_at):
    others = Agreement(weights, images_at, lambda resolution: images_at(resolution) ** 4, 16)
    same = Agreement(weights, images_at, images_at, 16)
    assert others(space.smallest) != same(space.smallest)
