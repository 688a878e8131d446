"""What a search writes."""

import json

import numpy as np
import pytest

from edgesearch.errors import SearchError
from edgesearch.search import Budgets, FeasibleSet, Interval, Leader, Ranking, Trial
from edgesearch.space import load_space
from edgesearch.workflow.events import silent
from edgesearch.workflow.layout import Layout
from edgesearch.workflow.scoring import Ranked, settle_winners
from edgesearch.workflow.search_files import choose_winners
from edgesearch.workflow.winners import read_winner


@pytest.fixture(scope="module")
def feasible():
    space = load_space("resnet_tiny")
    latency_ms = np.arange(space.size) / 100
    return FeasibleSet(space, latency_ms, Budgets(latency_ms=(0.05, 2.0)), 1.5)


def trial(feasible, index, agreement):
    architecture = feasible.space.architecture(index)
    return Trial(architecture, agreement, feasible.cost("latency_ms", architecture), 1.0, 1.0)


def alone(trials):
    """The trials, and a ranking that says of each just what it has."""
    trials = list(trials)
    leaders = tuple(
        Leader(t.architecture, Interval(t.agreement, t.agreement - 0.1, t.agreement + 0.1))
        for t in trials
    )
    return Ranked(trials, Ranking(leaders, 64, True, 0.95))


def test_winners_and_reserves_are_of_their_budget(feasible):
    figures = [(100, 0.9), (3, 0.8), (50, 0.7), (2, 0.6), (4, 0.5)]
    trials = [trial(feasible, index, agreement) for index, agreement in figures]
    ranked = [alone(t for t in trials if t.architecture in part) for part in feasible.parts]
    chosen = choose_winners(feasible, ranked, "cpu", 1, 2)

    def shown(group):
        return [(w.name, w.agreement, w.latency_ms["cpu"]["budget"]) for w in group]

    assert shown(chosen.winners) == [("w0", 0.8, 0.05), ("w1", 0.9, 2.0)]
    assert shown(chosen.reserves) == [
        ("r0", 0.6, 0.05),
        ("r1", 0.5, 0.05),
        ("r2", 0.8, 2.0),
        ("r3", 0.7, 2.0),
    ]
    for winner in (*chosen.winners, *chosen.reserves):
        low, high = winner.agreement_interval
        assert low < winner.agreement < high
        assert winner.agreement_images == 64
        assert read_winner(json.loads(json.dumps(winner.to_dict()))) == winner


def test_a_budget_without_a_candidate_is_named(feasible, tmp_path):
    trials = [trial(feasible, 100, 0.9)]
    message = "each of 2 budgets; found: none within search.budgets.latency_ms 0.05 among 1 that"
    with pytest.raises(SearchError, match=message):
        settle_winners(None, None, feasible, trials, 1, 2, 64, Layout(tmp_path), silent)
