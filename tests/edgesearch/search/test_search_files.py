"""What a search writes."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from edgesearch.errors import SearchError
from edgesearch.events import silent
from edgesearch.families import load_space
from edgesearch.run.layout import Layout
from edgesearch.search.budgets import Budgets, LatencyBudgets
from edgesearch.search.constraints import DeviceLatencies, FeasibleSet
from edgesearch.search.ranking import Interval, Leader, Ranking
from edgesearch.search.scoring import Ranked, settle_winners
from edgesearch.search.search_files import choose_winners, write_search
from edgesearch.search.trial_log import Trial
from edgesearch.search.winners import read_winner


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
        assert read_winner(json.loads(json.dumps(winner.to_dict())), feasible.space) == winner


def test_the_picture_shows_trials_fronts_budgets_and_winners_of_each_device(tmp_path, monkeypatch):
    space = load_space("resnet_tiny")
    latency_ms = np.arange(space.size) / 100
    feasible = FeasibleSet(
        space,
        latency_ms,
        Budgets(latency_ms=(0.05, 1.5), devices={"board": LatencyBudgets(latency_ms=20)}),
        1.0,
        devices={"board": DeviceLatencies(3 * latency_ms[::-1], 1.2)},
    )
    figures = [(100, 0.9), (3, 0.8), (50, 0.7), (2, 0.6), (4, 0.5)]
    trials = [trial(feasible, index, agreement) for index, agreement in figures]
    ranked = [alone(t for t in trials if t.architecture in part) for part in feasible.parts]
    shown = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: shown.extend(figure.axes))
    write_search(
        Layout(tmp_path), feasible, trials, choose_winners(feasible, ranked, "cpu", 1, 2), "cpu"
    )

    def points(axes, label):
        lines = [line for line in axes.get_lines() if line.get_label() == label]
        return {(float(x), float(y)) for line in lines for x, y in line.get_xydata()}

    here, there = shown
    seen = {index: (index / 100, agreement) for index, agreement in figures}
    assert points(here, "trials") == set(seen.values())
    assert points(here, "Pareto front") == {seen[2], seen[3], seen[100]}
    assert points(here, "winners") == {seen[3], seen[100]}
    assert {x for x, _ in points(here, "budget")} == {0.05, 1.5}
    on_board = {index: (3 * (431 - index) / 100, agreement) for index, agreement in figures}
    assert len(points(there, "trials")) == 5
    assert sorted(points(there, "Pareto front")) == [pytest.approx(on_board[100])]
    assert {x for x, _ in points(there, "budget")} == {20}
    assert [axes.get_xlabel() for axes in shown] == [
        f"predicted median on {name} (ms)" for name in ("cpu", "board")
    ]


def test_a_budget_without_a_candidate_is_named(feasible, tmp_path):
    trials = [trial(feasible, 100, 0.9)]
    message = "each of 2 budgets; found: none within search.budgets.latency_ms 0.05 among 1 that"
    with pytest.raises(SearchError, match=message):
        settle_winners(None, None, feasible, trials, 1, 2, 64, Layout(tmp_path), silent)
