"""The label-free score."""

import dataclasses

import pytest
import torch

from edgesearch.errors import SearchError
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.search import agreement as agreement_module
from edgesearch.search.agreement import Agreement
from edgesearch.search.beginnings import run_family
from edgesearch.search.settings import SearchSettings
from edgesearch.supernet.weights import SupernetWeights

IMAGES = 48


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Several threads take longer on networks as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def weights(space, random_state):
    query, key = random_state(space, 0), random_state(space, 1)
    return SupernetWeights(space, *query, *key)


@pytest.fixture(scope="module")
def calibration_at():
    images = torch.rand(IMAGES, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return lambda resolution: images


@pytest.fixture(scope="module")
def images_at(calibration_at):
    return lambda resolution, first, last: calibration_at(resolution)[first:last]


@pytest.fixture
def make(weights, images_at, calibration_at):
    """Agreements of all kinds, on 48 images."""

    def make(weights=weights, calibration_at=calibration_at, images=IMAGES, **options):
        return Agreement(weights, images_at, calibration_at, 16, images, SearchSettings(**options))

    return make


@pytest.fixture
def agreement(make):
    return make()


KINDS = [
    {"task": task, "score": score}
    for task in ("classification", "detection", "segmentation")
    for score in ("cosine", "relation", "cka")
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))


def calibrated_by_hand(network, images):
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    network.train()
    with torch.no_grad():
        for batch in images.split(16):
            network(batch)
    return network.eval()


@every_kind
def test_the_reference_agrees_with_itself(weights, space, make, kind):
    found = make(**kind).of_network(weights.reference(), space.largest.resolution)
    assert found == pytest.approx(1.0, abs=1e-5)


def test_trained_and_averaged_weights_that_are_equal_agree(weights, space, make):
    key = weights.key, weights.key_projector
    same = SupernetWeights(space, *key, *key)
    assert make(same)(space.largest) == pytest.approx(1.0, abs=1e-5)


@every_kind
def test_the_largest_subnet_as_reference(space, make, kind):
    assert make(**kind, reference="largest")(space.largest) == pytest.approx(1.0, abs=1e-5)
    assert make(**kind)(space.largest) < 0.999


@every_kind
def test_is_a_cosine_and_differs_between_architectures(space, make, kind):
    agreement = make(**kind)
    found = [agreement(space.architecture(index)) for index in range(0, space.size, 31)]
    assert all(-1 <= value <= 1 for value in found)
    assert len(set(found)) == len(found)


def test_tasks_and_scores_are_different_scores(space, make):
    kinds = [*KINDS[:6], {"task": "detection", "stages": [1]}]
    found = [make(**kind)(space.architecture(57)) for kind in kinds]
    assert len(set(found)) == len(found)


def test_opposite_embeddings_disagree(weights, space, agreement):
    network = weights.reference()
    network.append(_Opposite())
    assert agreement.of_network(network, 16) == pytest.approx(-1.0, abs=1e-5)


class _Opposite(torch.nn.Module):
    def forward(self, embeddings):
        return -embeddings


def test_equals_the_mean_cosine_by_hand(weights, space, calibration_at, agreement):
    architecture, images = space.architecture(57), calibration_at(16)
    networks = (weights.embedder(architecture), weights.reference())
    with torch.no_grad():
        embeddings = [calibrated_by_hand(network, images)(images) for network in networks]
    pairs = zip(*embeddings, strict=True)
    cosines = [float(torch.nn.functional.cosine_similarity(a, b, dim=0)) for a, b in pairs]
    assert agreement(architecture) == pytest.approx(sum(cosines) / IMAGES, abs=1e-5)
    assert agreement.scores(architecture).tolist() == pytest.approx(cosines, abs=1e-5)


def test_equals_the_self_similarity_by_hand(weights, space, calibration_at, make):
    """Of both stages, from the outputs of all blocks, with a loop over places."""
    architecture, images = space.architecture(200), calibration_at(16)
    networks = (weights.subnet(architecture), weights.reference()[0])
    with torch.no_grad():
        outputs = [calibrated_by_hand(n, images).forward_blocks(images)[1:-1] for n in networks]
    depths = [[a["stage1_depth"], a["stage2_depth"]] for a in (architecture, space.largest)]
    total = []
    for stage in (0, 1):
        ends = [sum(d[: stage + 1]) - 1 for d in depths]
        x, y = (o[end][0].flatten(1).T for o, end in zip(outputs, ends, strict=True))
        rows = []
        for place in range(len(x)):
            a, b = (
                torch.nn.functional.cosine_similarity(z, z[place : place + 1], dim=1)
                for z in (x, y)
            )
            rows.append(float(a @ b / a.norm() / b.norm()))
        total.append(sum(rows) / len(rows))
    found = make(task="segmentation", stages=[1, 2]).scores(architecture)
    assert float(found[0]) == pytest.approx(sum(total) / 2, abs=1e-5)


@every_kind
def test_does_not_depend_on_what_was_scored_before(space, make, kind):
    architecture, agreement = space.architecture(120), make(**kind)
    first = agreement(architecture)
    for other in (space.largest, space.smallest):
        agreement(other)
    assert agreement(architecture) == first
    assert make(**kind)(architecture) == first


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3], KINDS[6]], ids=lambda k: k["task"])
def test_fewer_images_are_the_first_of_them(space, make, kind):
    agreement = make(**kind)
    all_of_them = agreement.scores(space.smallest)
    assert all_of_them.shape == (IMAGES,)
    assert torch.equal(agreement.scores(space.smallest, 32), all_of_them[:32])
    assert agreement.scores(space.smallest, 20).tolist() == pytest.approx(
        all_of_them[:20].tolist(), abs=1e-6
    )
    agreement.images = 16
    assert agreement(space.smallest) == float(all_of_them[:16].mean())


def test_leaves_weights_and_random_state_alone(weights, space, agreement):
    before = {name: tensor.clone() for name, tensor in weights.query.items()}
    state = torch.random.get_rng_state()
    agreement(space.architecture(3))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(weights.query[name], tensor) for name, tensor in before.items())


def test_statistics_come_from_the_calibration_images(space, make, calibration_at):
    others = make(calibration_at=lambda resolution: calibration_at(resolution) ** 4)
    assert others(space.smallest) != make()(space.smallest)


def test_statistics_of_so_many_candidates_are_kept(space, make, monkeypatch):
    monkeypatch.setattr(agreement_module, "KEPT_STATISTICS", 2)
    agreement = make()
    found = [agreement(space.architecture(index)) for index in range(4)]
    assert list(agreement._statistics) == [space.architecture(index) for index in (2, 3)]
    monkeypatch.setattr(agreement_module, "recalibrate_all", None)  # known: no need of it
    assert [agreement(space.architecture(index)) for index in (2, 3)] == found[2:]


class TestReference:
    @pytest.fixture
    def runs(self, monkeypatch):
        """The networks that images were run through."""
        seen = []
        monkeypatch.setattr(
            agreement_module,
            "run_family",
            lambda networks, *rest: seen.extend(networks) or run_family(networks, *rest),
        )
        return seen

    @pytest.mark.parametrize("kind", [KINDS[0], KINDS[3]], ids=lambda k: k["task"])
    def test_sees_each_image_once(self, space, make, runs, kind):
        agreement = make(**kind)
        runs.clear()
        for index in range(4):
            agreement(space.architecture(index))
        assert runs.count(agreement.reference_network) == IMAGES // 16

    def test_what_there_is_no_room_for_is_computed_again(self, space, make, runs, monkeypatch):
        expected = make(task="detection")(space.smallest)
        monkeypatch.setattr(
            agreement_module, "KEPT_BYTES", 16 * 24 * 4 * 4 * 4
        )  # one batch of three
        agreement = make(task="detection")
        runs.clear()
        assert [agreement(space.smallest) for _ in range(2)] == [expected] * 2
        assert runs.count(agreement.reference_network) == 3 + 2
        assert (
            sum(t.nbytes for kept in agreement._kept.values() for t in kept)
            <= agreement_module.KEPT_BYTES
        )


class TestRefused:
    def test_a_stage_that_does_not_exist(self, make):
        message = r"stages 1 to 2 of the space 'toy' in search\.stages; found: stage 3\. Choose"
        with pytest.raises(SearchError, match=message):
            make(task="detection", stages=[1, 3])

    def test_maps_without_places(self, space, random_state):
        tiny = dataclasses.replace(space, resolutions=(3,))
        query = random_state(tiny, 0)
        weights = SupernetWeights(tiny, *query, *query)
        none = (weights, lambda *_: torch.zeros(0), lambda _: torch.rand(4, 3, 3, 3), 4, 4)
        message = (
            "maps of at least 2 × 2 places, for search.task segmentation; found: 1 × 1 after "
            "stage 2 of 'toy' at 3 pixels. Choose earlier stages"
        )
        with pytest.raises(SearchError, match=message):
            Agreement(*none, SearchSettings(task="segmentation"))
        Agreement(*none, SearchSettings(task="segmentation", stages=[1]))
        Agreement(*none)


def test_resolutions_other_than_the_references(images_at, random_state):
    """Each candidate sees the images at its own resolution; its grid is enlarged."""
    space = ResNetSpace("two", "basic", "small", (4,), ((4, 8), (8,)), ((1,), (1,)), (8, 16))
    weights = SupernetWeights(space, *random_state(space, 0), *random_state(space, 1))
    seen = []

    def resized(resolution, first, last):
        seen.append(resolution)
        return torch.nn.functional.interpolate(images_at(16, first, last), (resolution,) * 2)

    for task in ("classification", "detection"):
        agreement = Agreement(
            weights, resized, lambda r: resized(r, 0, 16), 16, 16, SearchSettings(task=task)
        )
        seen.clear()
        assert -1 <= agreement(space.smallest) <= 1
        assert seen == [8, 8, 16]
