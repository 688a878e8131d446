"""What a search writes."""

import numpy as np
import pytest

from edgesearch.errors import SearchError
from edgesearch.search import Budgets, FeasibleSet, Trial
from edgesearch.space import load_space
from edgesearch.workflow.search_files import choose_winners


@pytest.fixture(scope="module")
def feasible():
    space = load_space("resnet_tiny")
    latency_ms = np.arange(space.size) / 100
    return FeasibleSet(space, latency_ms, Budgets(latency_ms=(0.05, 2.0)), 1.5)


def trial(feasible, index, agreement):
    architecture = feasible.space.architecture(index)
    return Trial(architecture, agreement, feasible.cost("latency_ms", architecture), 1.0, 1.0)


def test_winners_and_reserves_are_of_their_budget(feasible):
    figures = [(100, 0.9), (3, 0.8), (50, 0.7), (2, 0.6), (4, 0.5)]
    trials = [trial(feasible, index, agreement) for index, agreement in figures]
    chosen = choose_winners(feasible, trials, "cpu", 1, 2)

    def shown(group):
        return [(w.name, w.agreement, w.latency_ms["cpu"]["budget"]) for w in group]

    assert shown(chosen.winners) == [("w0", 0.8, 0.05), ("w1", 0.9, 2.0)]
    assert shown(chosen.reserves) == [
        ("r0", 0.6, 0.05),
        ("r1", 0.5, 0.05),
        ("r2", 0.8, 2.0),
        ("r3", 0.7, 2.0),
    ]


def test_a_budget_without_a_candidate_is_named(feasible):
    trials = [trial(feasible, 100, 0.9)]
    message = "each of 2 budgets; found: none within search.budgets.latency_ms 0.05 among 1 that"
    with pytest.raises(SearchError, match=message):
        choose_winners(feasible, trials, "cpu", 1, 2)
