"""Every strategy keeps the promises of the protocol; evolution is worth its while."""

import statistics
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edgesearch.errors import SearchError
from edgesearch.families import load_space
from edgesearch.search.budgets import Budgets
from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.strategies import (
    EvolutionStrategy,
    ExhaustiveStrategy,
    RandomStrategy,
    SpreadStrategy,
    SurrogateStrategy,
    TPEStrategy,
    make_strategy,
)

BATCH = 4
STRATEGIES = {
    "random": lambda feasible, seed: RandomStrategy(feasible, seed, BATCH),
    "evolution": lambda feasible, seed: EvolutionStrategy(feasible, 10, seed, BATCH),
    "tpe": lambda feasible, seed: TPEStrategy(feasible, seed, BATCH),
    "surrogate": lambda feasible, seed: SurrogateStrategy(feasible, seed, BATCH),
    "exhaustive": lambda feasible, seed: ExhaustiveStrategy(feasible, BATCH),
    "spread": lambda feasible, seed: SpreadStrategy(
        [EvolutionStrategy(feasible, 5, seed + n, BATCH) for n in range(2)]
    ),
}
SEEDED = ["random", "evolution", "tpe", "surrogate"]


def searching_threads():
    return [thread for thread in threading.enumerate() if thread.name == "nni-evolution"]


@pytest.fixture(params=STRATEGIES)
def make(request):
    return STRATEGIES[request.param]


class TestStrategy:
    """The promises of `Strategy`, for each implementation."""

    def test_proposes_feasible_architectures_only(self, make, feasible, smooth, ask_all):
        asked = ask_all(make(feasible, 0), smooth, 40).asked
        assert len(asked) == 40
        assert all(architecture in feasible for architecture in asked)

    def test_proposes_none_twice_and_all_before_it_ends(self, make, feasible, smooth, ask_all):
        result = ask_all(make(feasible, 0), smooth)
        assert result.ended
        assert len(result.asked) == len(set(result.asked)) == len(feasible.indices)

    def test_ends_again_when_asked_again(self, make, space, latency_ms):
        few = FeasibleSet(space, latency_ms, Budgets(latency_ms=float(np.sort(latency_ms)[3])), 1.0)
        strategy = make(few, 0)
        asked = []
        while proposals := strategy.ask():
            asked += proposals
            strategy.tell(dict.fromkeys(proposals, 0.0))
        assert len(asked) == 4
        assert [strategy.ask(), strategy.ask()] == [(), ()]
        strategy.close()

    def test_proposes_batches_of_the_given_size(self, make, feasible, smooth):
        strategy = make(feasible, 0)
        for _ in range(6):
            proposals = strategy.ask()
            assert 1 <= len(proposals) <= BATCH
            assert len(set(proposals)) == len(proposals)
            strategy.tell({architecture: smooth(architecture) for architecture in proposals})
        strategy.close()

    def test_the_order_of_scoring_does_not_matter(self, make, feasible, smooth):
        """Processes that share a batch are done in any order."""
        forwards, backwards = make(feasible, 2), make(feasible, 2)
        for _ in range(8):
            proposals = forwards.ask()
            assert backwards.ask() == proposals
            forwards.tell({a: smooth(a) for a in proposals})
            backwards.tell({a: smooth(a) for a in reversed(proposals)})
        forwards.close()
        backwards.close()

    def test_same_seed_and_scores_give_the_same(self, make, feasible, smooth, ask_all):
        first, second = (ask_all(make(feasible, 3), smooth, 50).asked for _ in range(2))
        assert first == second

    def test_goes_on_when_told_the_former_scores(self, make, feasible, smooth, ask_all):
        whole = ask_all(make(feasible, 1), smooth, 40).asked
        known = {architecture: smooth(architecture) for architecture in whole[:20]}

        def score(architecture):
            return known.pop(architecture) if known else smooth(architecture)

        assert ask_all(make(feasible, 1), score, 40).asked == whole

    def test_can_be_closed_before_the_first_proposal(self, make, feasible):
        make(feasible, 0).close()
        assert searching_threads() == []

    def test_can_be_closed_while_it_waits_for_a_score(self, make, feasible):
        strategy = make(feasible, 0)
        strategy.ask()
        strategy.close()
        strategy.close()
        assert searching_threads() == []

    def test_can_be_closed_after_a_score(self, make, feasible):
        strategy = make(feasible, 0)
        strategy.tell(dict.fromkeys(strategy.ask(), 1.0))
        strategy.close()
        assert searching_threads() == []


@pytest.mark.parametrize("name", SEEDED)
def test_seeds_differ(name, feasible, smooth, ask_all):
    one, other = (ask_all(STRATEGIES[name](feasible, seed), smooth, 20).asked for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize("name", ["evolution", "tpe", "surrogate"])
def test_finds_better_ones_than_chance(name, space, latency_ms, ask_all):
    feasible = FeasibleSet(space, latency_ms, Budgets(latency_ms=1.9), 1.0)

    def score(architecture):
        return -sum(abs(value - 16) for value in architecture.values())

    def best(name, seed):
        asked = ask_all(STRATEGIES[name](feasible, seed), score, 60).asked
        return statistics.mean(sorted(map(score, asked))[-8:])

    found = {
        name: statistics.median(best(name, seed) for seed in range(5)) for name in ("random", name)
    }
    assert found[name] > found["random"]


@pytest.mark.parametrize(
    ("evaluations", "asked_for", "kept"),
    [(40, None, 10), (40, 100, 10), (40, 4, 4), (3, None, 1)],
)
def test_population_is_a_quarter_of_the_evaluations_at_most(
    feasible, smooth, ask_all, evaluations, asked_for, kept
):
    """With no more individuals than that, the proposals are those of that very population."""
    strategy = make_strategy(
        "evolution", feasible, evaluations=evaluations, population=asked_for, seed=0, batch=BATCH
    )
    same = EvolutionStrategy(feasible, kept, 0, BATCH)
    assert ask_all(strategy, smooth, 30).asked == ask_all(same, smooth, 30).asked


def test_another_population_proposes_others(feasible, smooth, ask_all):
    asked = [ask_all(EvolutionStrategy(feasible, n, 0, BATCH), smooth, 30).asked for n in (4, 10)]
    assert asked[0] != asked[1]


def test_all_are_evaluated_where_there_are_few(feasible):
    count = len(feasible.indices)
    for name in ("surrogate", "evolution", "tpe", "random"):
        options = {"population": None, "seed": 0}
        few = make_strategy(name, feasible, evaluations=count, **options)
        many = make_strategy(name, feasible, evaluations=count - 1, **options)
        assert isinstance(few, ExhaustiveStrategy)
        assert not isinstance(many, ExhaustiveStrategy)


def test_evolution_finds_what_chance_hardly_meets(space, latency_ms, smooth, ask_all, monkeypatch):
    """One feasible architecture is proposed even if NNI gives up before it meets it."""
    monkeypatch.setattr("edgesearch.search.strategies.evolution.PATIENCE", 20)
    one = FeasibleSet(space, latency_ms, Budgets(latency_ms=float(latency_ms.min())), 1.0)
    asked = ask_all(EvolutionStrategy(one, 4, 0, BATCH), smooth).asked
    assert asked == [space.architecture(int(latency_ms.argmin()))]


def test_an_error_inside_of_evolution_reaches_whoever_asks(feasible, monkeypatch):
    strategy = EvolutionStrategy(feasible, 2, 0, BATCH)
    monkeypatch.setattr(type(feasible), "__contains__", lambda self, architecture: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        strategy.ask()
    strategy.close()
    assert searching_threads() == []


CODE = """
import sys
import numpy as np
from edgesearch.errors import SearchError
from edgesearch.search import Budgets, FeasibleSet
from edgesearch.search.strategies import EvolutionStrategy
from edgesearch.families import load_space
space = load_space("resnet_tiny")
strategy = EvolutionStrategy(FeasibleSet(space, np.ones(space.size), Budgets(), 1.0), 4, 0, 4)
assert len(strategy.ask()) == 4
strategy.close()
assert "nni" in sys.modules
found = [name for name in sys.modules if "lightning" in name]
assert not found, found
"""


def test_nni_brings_no_lightning_and_says_nothing():
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("name", "module"),
    [("evolution", "nni.nas.strategy"), ("tpe", "nni.algorithms.hpo.tpe_tuner")],
)
def test_missing_nni_gives_the_command_that_installs_it(feasible, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    message = f"package nni 3.0 for the strategy `{name}`; found: .*pip install nni==3.0"
    options = {"evaluations": 20, "population": None, "seed": 0}
    make_strategy("surrogate", feasible, **options)
    with pytest.raises(SearchError, match=message):
        make_strategy(name, feasible, **options)


def test_exhaustive_is_refused_where_there_are_too_many(feasible):
    count = len(feasible.indices)
    message = (
        rf"at most 20 feasible .*\(search.evaluations\).*`exhaustive`; found: {count}\. Set more"
    )
    with pytest.raises(SearchError, match=message):
        make_strategy("exhaustive", feasible, evaluations=20, population=None, seed=0)
    options = {"evaluations": count, "population": None, "seed": 0}
    assert isinstance(make_strategy("exhaustive", feasible, **options), ExhaustiveStrategy)


@pytest.mark.parametrize("name", SEEDED)
def test_evaluations_are_spread_over_the_budgets(name, space, latency_ms, smooth, ask_all):
    """A tight budget that few keep gets its share, from all strategies."""
    tight = float(np.quantile(latency_ms, 0.12))
    feasible = FeasibleSet(space, latency_ms, Budgets(latency_ms=(tight, 1.9)), 1.0)
    strategy = make_strategy(name, feasible, evaluations=40, population=None, seed=0, batch=BATCH)
    asked = ask_all(strategy, smooth, 40).asked
    assert len(set(asked)) == len(asked) == 40
    inside = sum(architecture in feasible.parts[0] for architecture in asked)
    assert 14 <= inside < 40
    assert searching_threads() == []


def test_surrogate_stays_within_a_large_set(ask_all, monkeypatch):
    """Of more than it looks at, so many are drawn; neighbours of the best are always among them."""
    module = "edgesearch.search.strategies.surrogate"
    monkeypatch.setattr(f"{module}.MOST_CANDIDATES", 64)
    monkeypatch.setattr(f"{module}.MOST_TRIALS", 24)
    space = load_space("resnet_small")
    macs = space.sum_over_blocks(lambda block: block.macs)
    feasible = FeasibleSet(space, macs / 1e6, Budgets(macs=float(np.median(macs))), 1.0)

    def score(architecture):
        return float(np.log(space.macs(architecture))) + 0.1 * architecture["stage1_depth"]

    asked = ask_all(SurrogateStrategy(feasible, 0, 8), score, 64).asked
    assert all(architecture in feasible for architecture in asked)
    scores = [score(space.architecture(int(index))) for index in feasible.indices]
    assert max(map(score, asked)) >= np.quantile(scores, 0.99)


def test_surrogate_is_content_with_equal_scores(feasible, ask_all):
    asked = ask_all(SurrogateStrategy(feasible, 0, BATCH), lambda architecture: 0.5, 40).asked
    assert len(set(asked)) == 40
