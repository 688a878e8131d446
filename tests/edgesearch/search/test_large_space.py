"""A space of 10^14 architectures: nothing is laid out, and proposing takes moments."""

import itertools
import math
import resource
import time

import numpy as np
import pytest

from devices import DeviceSpec
from edgesearch.errors import InfeasibleError
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.latency.correction import Correction
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.workloads import correction_networks, held_out_networks
from edgesearch.search.costs import Costs, DeviceLatencies
from edgesearch.search.feasible import DrawnSet, find_feasible
from edgesearch.search.files import SearchFiles
from edgesearch.search.search import Search
from edgesearch.search.settings import Budgets, Range, SearchSettings
from edgesearch.search.strategies.strategy import make_strategy
from edgesearch.space.count import Count
from edgesearch.stages.rank import spread_subnets

WIDTHS = tuple(tuple(8 * step * scale for step in range(3, 13)) for scale in (1, 1, 2, 2, 4, 4, 8))
SPACE = ResNetSpace(
    name="large",
    block="bottleneck",
    stem="imagenet",
    stem_widths=(32, 48, 64),
    stage_widths=WIDTHS,
    stage_depths=((1, 2, 3, 4, 5, 6, 7),) * 7,
    resolutions=(192, 208, 224, 240, 256),
)


@pytest.fixture(scope="module", autouse=True)
def _little_memory():
    """The whole module adds less than 1 GB to what the process has taken."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000


@pytest.fixture(scope="module")
def model():
    """Latencies by MACs and parameters; one block cannot run."""
    block_ms = {b.key: 0.01 + b.macs / 1e8 + b.params / 1e7 for b in SPACE.distinct_blocks()}
    block_ms[SPACE.blocks(SPACE.largest)[-2].key] = float("nan")
    correction = Correction(0.1, 1.02, 1.05, 8, 0.01, 0.0, False, 0.01, 1.02)
    return LatencyModel(SPACE, block_ms, correction)


@pytest.fixture(scope="module")
def costs(model):
    own = DeviceLatencies(model.predict_all, model.correction.p95_ratio)
    return Costs(SPACE, DeviceSpec("local-cpu"), own)


@pytest.fixture(scope="module")
def ends_ms(model):
    """Latencies of the smallest, of a typical and of a large architecture."""
    drawn = model.predict_all(SPACE.draw(2000, np.random.default_rng(5)))
    finite = drawn[np.isfinite(drawn)]
    return model.predict(SPACE.smallest).median_ms, float(np.median(finite)), float(finite.max())


def score(architecture):
    """Rises with size, and is best where depths are in the middle."""
    depths = [value for name, value in architecture.items() if name.endswith("depth")]
    macs = float(SPACE.macs(architecture))
    return float(np.log(macs)) - 0.1 * sum(abs(depth - 4) for depth in depths)


@pytest.fixture(params=["typical", "small", "narrow"])
def feasible(request, costs, ends_ms):
    """Half of the architectures; hardly any; and hardly any between two bounds."""
    least, middle, _ = ends_ms
    budgets = {
        "typical": Budgets(latency_ms=middle),
        "small": Budgets(latency_ms=1.5 * least),
        "narrow": Budgets(latency_ms=Range(min=2 * least, max=2.02 * least), params=1.5e7),
    }
    return find_feasible(costs, budgets[request.param])


def test_it_is_large():
    assert 1e14 < SPACE.size < 1e20


def test_feasible_ones_are_found(feasible, costs):
    assert isinstance(feasible, DrawnSet)
    found = feasible.some(500, np.random.default_rng(0))
    assert feasible.keeps(found).all()
    assert len(np.unique(found, axis=0)) > 250
    for name, bound in feasible.budgets.ranges().items():
        low, high = bound.ends
        values = [feasible.cost(name, SPACE.from_digits(row)) for row in found[:20]]
        assert all(low <= value <= high for value in values)
    order = list(itertools.islice(feasible.in_random_order(3), 700))
    assert len(set(order)) == 700
    assert order == list(itertools.islice(feasible.in_random_order(3), 700))
    assert str(feasible.count).startswith(("about ", "fewer than "))


def test_the_share_is_that_of_what_is_drawn(costs, ends_ms, model):
    count = find_feasible(costs, Budgets(latency_ms=ends_ms[1])).count
    share = np.mean(model.predict_all(SPACE.draw(20_000, np.random.default_rng(9))) <= ends_ms[1])
    assert count.number / SPACE.size == pytest.approx(share, abs=0.02)
    assert 0 < model.cannot_run().number < 0.1 * SPACE.size
    assert Count(0, SPACE.size, 20_000).drawn == 20_000


def test_costs_of_many_are_those_of_each(costs, model):
    digits = SPACE.draw(50, np.random.default_rng(0))
    for row, ms, macs in zip(digits, model.predict_all(digits), costs["macs"](digits), strict=True):
        architecture = SPACE.from_digits(row)
        assert ms == pytest.approx(model.predict(architecture).median_ms)
        assert macs == SPACE.macs(architecture)


@pytest.mark.parametrize("name", ["surrogate", "evolution", "tpe", "random"])
def test_strategies_propose_in_moments(feasible, name, ask_all):
    settings = SearchSettings(strategy=name, evaluations=64)
    start = time.perf_counter()
    asked = ask_all(make_strategy(feasible, settings, seed=0), score, 64)
    assert time.perf_counter() - start < 60
    assert len(asked) == len(set(asked)) == 64
    assert all(architecture in feasible for architecture in asked)


def test_a_search_finds_what_is_better_than_chance(costs, ends_ms, tmp_path):
    feasible = find_feasible(costs, Budgets(latency_ms=1.5 * ends_ms[0]))

    def scores_on(architectures, images):
        import torch

        return [torch.full((images,), score(each), dtype=torch.float64) for each in architectures]

    settings = SearchSettings(evaluations=96)
    search = Search(
        feasible, settings, SearchFiles(tmp_path), scores_on, first_images=8, most_images=8
    )
    (winner,) = search.run().winners
    assert winner.architecture in feasible
    chance = map(score, itertools.islice(feasible.in_random_order(1), 96))
    assert winner.agreement > max(chance)


def test_what_cannot_be_reached_is_said(costs, ends_ms):
    least = math.ceil(1000 * ends_ms[0]) / 1000  # a budget of this figure can be met
    message = f"latency_ms .*, but the minimum of this space is {least}; about .* cannot"
    with pytest.raises(InfeasibleError, match=message):
        find_feasible(costs, Budgets(latency_ms=0.9 * ends_ms[0]))
    together = Budgets(latency_ms=1.2 * ends_ms[0], macs=Range(min=1.2e9))
    with pytest.raises(InfeasibleError, match="met alone, but not all together; nearest: .* binds"):
        find_feasible(costs, together)


def test_networks_to_measure_and_to_rank():
    chosen = correction_networks(SPACE, 8)
    assert len(chosen) == 8
    assert chosen[0] == SPACE.smallest
    assert chosen[-1] == SPACE.largest
    assert len(held_out_networks(SPACE, 24, 0, chosen)) == 24
    subnets = spread_subnets(SPACE, 40, 0)
    assert set(spread_subnets(SPACE, 10, 0)) <= set(subnets)
    macs = np.array([SPACE.macs(each) for each in subnets])
    assert (np.diff(macs) >= 0).all()
    share = (macs - SPACE.macs(SPACE.smallest)) / np.ptp(
        [SPACE.macs(SPACE.smallest), SPACE.macs(SPACE.largest)]
    )
    wanted = (np.arange(40) + 0.5) / 40
    assert np.abs(share - wanted).max() < 0.05
