"""Every strategy keeps the promises of the protocol; evolution is worth its while."""

import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgesearch.errors import SearchError
from edgesearch.families import load_space, space_from_dict
from edgesearch.search.feasible import DrawnSet, EnumeratedSet
from edgesearch.search.settings import Budgets, SearchSettings
from edgesearch.search.strategies.nni_strategies import EvolutionStrategy, TPEStrategy
from edgesearch.search.strategies.strategy import (
    FixedStrategy,
    SpreadStrategy,
    make_strategy,
)
from edgesearch.search.strategies.surrogate import Encoding, SurrogateStrategy

BATCH = 4
STRATEGIES = {
    "random": lambda feasible, seed: FixedStrategy(feasible.in_random_order(seed), BATCH),
    "evolution": lambda feasible, seed: EvolutionStrategy(feasible, 10, seed, BATCH),
    "tpe": lambda feasible, seed: TPEStrategy(feasible, seed, BATCH),
    "surrogate": lambda feasible, seed: SurrogateStrategy(feasible, seed, BATCH),
    "spread": lambda feasible, seed: SpreadStrategy(
        [EvolutionStrategy(feasible, 5, seed + n, BATCH) for n in range(2)]
    ),
}
SEEDED = ["random", "evolution", "tpe", "surrogate"]


@pytest.fixture(params=STRATEGIES)
def make(request):
    return STRATEGIES[request.param]


@pytest.fixture
def either(as_small_or_large, make_feasible, latency_ms):
    """A feasible set of each kind."""
    found = make_feasible(latency_ms, Budgets(latency_ms=1.5))
    assert isinstance(found, EnumeratedSet if as_small_or_large == "laid out" else DrawnSet)
    return found


class TestStrategy:
    """The promises of `Strategy`, for each implementation, in small and large spaces."""

    def test_proposes_each_feasible_architecture_once(self, make, either, smooth, ask_all):
        asked = ask_all(make(either, 0), smooth)
        assert len(asked) == len(set(asked))
        assert set(asked) == set(either.in_random_order(0))

    def test_ends_again_when_asked_again(self, make, make_feasible, latency_ms, as_small_or_large):
        few = make_feasible(latency_ms, Budgets(latency_ms=float(np.sort(latency_ms)[3])))
        strategy = make(few, 0)
        asked = []
        while proposals := strategy.ask():
            asked += proposals
            strategy.tell(dict.fromkeys(proposals, 0.0))
        assert len(asked) == 4
        assert [strategy.ask(), strategy.ask()] == [(), ()]

    def test_batches_in_any_order_of_scoring(self, make, either, smooth):
        """Processes that share a batch are done in any order."""
        forwards, backwards = make(either, 2), make(either, 2)
        for _ in range(8):
            proposals = forwards.ask()
            assert 1 <= len(proposals) <= BATCH
            assert len(set(proposals)) == len(proposals)
            assert backwards.ask() == proposals
            forwards.tell({a: smooth(a) for a in proposals})
            backwards.tell({a: smooth(a) for a in reversed(proposals)})

    def test_goes_on_when_told_the_former_scores(self, make, either, smooth, ask_all):
        whole = ask_all(make(either, 1), smooth, 40)
        known = {architecture: smooth(architecture) for architecture in whole[:20]}

        def score(architecture):
            return known.pop(architecture) if known else smooth(architecture)

        assert ask_all(make(either, 1), score, 40) == whole


@pytest.mark.parametrize("name", SEEDED)
def test_seeds_differ(name, feasible, smooth, ask_all):
    one, other = (ask_all(STRATEGIES[name](feasible, seed), smooth, 20) for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize("name", ["evolution", "tpe", "surrogate"])
def test_finds_better_ones_than_chance(name, make_feasible, latency_ms, ask_all):
    feasible = make_feasible(latency_ms, Budgets(latency_ms=1.9))

    def score(architecture):
        return -sum(abs(value - 16) for value in architecture.values())

    def best(name, seed):
        asked = ask_all(STRATEGIES[name](feasible, seed), score, 60)
        return statistics.mean(sorted(map(score, asked))[-8:])

    found = {
        name: statistics.median(best(name, seed) for seed in range(5)) for name in ("random", name)
    }
    assert found[name] > found["random"]


@pytest.mark.parametrize(
    ("evaluations", "asked_for", "kept"), [(40, None, 10), (40, 4, 4), (3, None, 1)]
)
def test_population_is_a_quarter_of_the_evaluations_at_most(
    feasible, smooth, ask_all, evaluations, asked_for, kept
):
    """With no more individuals than that, the proposals are those of that very population."""
    strategy = make_strategy(
        feasible, settings("evolution", evaluations, population=asked_for), seed=0
    )
    same, another = (EvolutionStrategy(feasible, n, 0, BATCH) for n in (kept, kept + 3))
    asked = ask_all(strategy, smooth, 30)
    assert asked == ask_all(same, smooth, 30)
    assert asked != ask_all(another, smooth, 30)


def settings(strategy, evaluations, **options):
    return SearchSettings(
        strategy=strategy, evaluations=evaluations, candidates_at_once=BATCH, **options
    )


@pytest.mark.parametrize("name", [*SEEDED, "exhaustive"])
def test_all_are_evaluated_where_there_are_few(name, feasible, smooth, ask_all):
    count = feasible.count.number
    everything = make_strategy(feasible, settings(name, count), seed=0)
    assert ask_all(everything, smooth) == list(feasible)
    if name == "exhaustive":
        message = (
            rf"at most {count - 1} feasible .*\(search.evaluations\).*`exhaustive`; "
            rf"found: {count} of 243\. Set more"
        )
        with pytest.raises(SearchError, match=message):
            make_strategy(feasible, settings(name, count - 1), seed=0)
    else:
        strategy = make_strategy(feasible, settings(name, count - 1), seed=0)
        assert ask_all(strategy, smooth, BATCH) != list(feasible)[:BATCH]


@pytest.mark.parametrize("name", SEEDED)
def test_evaluations_are_spread_over_the_budgets(
    name, as_small_or_large, make_feasible, latency_ms, smooth, ask_all
):
    """A tight budget that few keep gets its share, from all strategies."""
    tight = float(np.quantile(latency_ms, 0.12))
    feasible = make_feasible(latency_ms, Budgets(latency_ms=(tight, 1.9)))
    asked = ask_all(make_strategy(feasible, settings(name, 40), seed=0), smooth, 40)
    assert len(set(asked)) == len(asked) == 40
    inside = sum(architecture in feasible.parts[0] for architecture in asked)
    assert 14 <= inside < 40


def test_evolution_finds_what_chance_hardly_meets(
    space, make_feasible, latency_ms, smooth, ask_all, monkeypatch
):
    """One feasible architecture is proposed even if NNI does not meet it."""
    monkeypatch.setattr(EvolutionStrategy, "patience", 20)
    one = make_feasible(latency_ms, Budgets(latency_ms=float(latency_ms.min())))
    asked = ask_all(EvolutionStrategy(one, 4, 0, BATCH), smooth)
    assert asked == [space.architecture(int(latency_ms.argmin()))]


def test_surrogate_stays_within_a_large_set(make_feasible, ask_all, monkeypatch):
    """Of more than it looks at, so many are drawn; neighbours of the best are always among them."""
    module = "edgesearch.search.strategies.surrogate"
    monkeypatch.setattr(f"{module}.MOST_CANDIDATES", 64)
    monkeypatch.setattr(f"{module}.MOST_TRIALS", 24)
    space = load_space("resnet_small")
    macs = space.sums(lambda block: block.macs)(None)
    feasible = make_feasible(macs / 1e6, Budgets(macs=float(np.median(macs))), of=space)

    def score(architecture):
        return float(np.log(space.macs(architecture))) + 0.1 * architecture["stage1_depth"]

    asked = ask_all(SurrogateStrategy(feasible, 0, 8), score, 64)
    assert all(architecture in feasible for architecture in asked)
    scores = [score(architecture) for architecture in list(feasible)[::7]]
    assert max(map(score, asked)) >= np.quantile(scores, 0.99)


def test_surrogate_takes_kernels_of_size_0_for_those_that_only_scale(make_feasible, ask_all):
    fields = {"activation": "relu", "stem_widths": [4], "head_widths": [8], "resolutions": [32]}
    fields |= {"stage_strides": [1], "stage_widths": [[4]], "stage_depths": [[1, 2, 3]]}
    fields |= {"stage_kernels": [[0, 3, 5, 7]], "stage_expansions": [[2, 4, 6]]}
    space = space_from_dict({"name": "little", "family": "mobile", **fields})
    feasible = make_feasible(np.ones(space.size), Budgets(latency_ms=1.5), of=space)
    points = Encoding(feasible)(space.to_digits(list(space)))
    assert np.isfinite(points).all()
    several = [name for name, values in space.choices.items() if len(values) > 1]
    expected = [np.log(max(1, a["stage1_kernel"])) / np.log(7) for a in space]
    assert points[:, several.index("stage1_kernel")] == pytest.approx(expected)
    asked = ask_all(SurrogateStrategy(feasible, 0, BATCH), lambda a: a["stage1_kernel"])
    assert set(asked) == set(space)


def test_surrogate_is_content_with_equal_scores(feasible, ask_all):
    asked = ask_all(SurrogateStrategy(feasible, 0, BATCH), lambda architecture: 0.5, 40)
    assert len(set(asked)) == 40


CODE = """
import sys
from devices import DeviceSpec
from edgesearch.families import load_space, space_from_dict
from edgesearch.search.costs import Costs, DeviceLatencies
from edgesearch.search.feasible import find_feasible
from edgesearch.search.settings import Budgets
from edgesearch.search.strategies.nni_strategies import EvolutionStrategy
space = load_space("resnet_tiny")
own = DeviceLatencies(space.sums(lambda block: block.macs), 1.0)
feasible = find_feasible(Costs(space, DeviceSpec("local-cpu"), own), Budgets())
assert len(EvolutionStrategy(feasible, 4, 0, 4).ask()) == 4
assert "nni" in sys.modules
found = [name for name in sys.modules if "lightning" in name]
assert not found, found
"""


def test_nni_brings_no_lightning_and_says_nothing():
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "module"),
    [("evolution", "nni.nas.strategy.evolution"), ("tpe", "nni.algorithms.hpo.tpe_tuner")],
)
def test_missing_nni_gives_the_command_that_installs_it(feasible, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    message = f"package nni 3.0 for the strategy `{name}`; found: .*pip install nni==3.0"
    make_strategy(feasible, settings("surrogate", 20), seed=0)
    with pytest.raises(SearchError, match=message):
        make_strategy(feasible, settings(name, 20), seed=0)
