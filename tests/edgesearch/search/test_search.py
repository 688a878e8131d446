"""The loop of a search, and the front of its trials."""

import random

import pytest

from edgesearch.errors import Interrupted
from edgesearch.search.budgets import Budgets
from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.search import pareto_front, run_search
from edgesearch.search.strategies import RandomStrategy, make_strategy
from edgesearch.search.trial_log import Trial, TrialLog


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trials.jsonl"


def search(feasible, score, path, evaluations=20, name="surrogate", on_trial=None):
    strategy = make_strategy(name, feasible, evaluations=evaluations, population=None, seed=0)
    log = TrialLog(path, feasible.space, {})
    return run_search(feasible, strategy, lambda all: map(score, all), log, evaluations, on_trial)


class Counted:
    """A score that remembers what it was asked for, and may stop the search."""

    def __init__(self, score, stop_after=10**6, stop=KeyboardInterrupt):
        self.score, self.stop_after, self.stop = score, stop_after, stop
        self.scored = []

    def __call__(self, architecture):
        if len(self.scored) == self.stop_after:
            raise self.stop
        self.scored.append(architecture)
        return self.score(architecture)


def test_trials_are_ranked_and_carry_their_costs(feasible, smooth, path):
    reported = []
    trials = search(
        feasible, smooth, path, on_trial=lambda number, trial: reported.append((number, trial))
    )
    assert len(trials) == len({trial.architecture for trial in trials}) == 20
    agreements = [trial.agreement for trial in trials]
    assert agreements == sorted(agreements, reverse=True)
    for trial in trials:
        assert trial.agreement == smooth(trial.architecture)
        assert trial.latency_ms == feasible.cost("latency_ms", trial.architecture) <= 1.5
        assert trial.params == feasible.space.params(trial.architecture)
        assert trial.macs == feasible.space.macs(trial.architecture)
    assert [number for number, _ in reported] == list(range(1, 21))
    assert list(TrialLog(path, feasible.space, {}).trials.values()) == [
        trial for _, trial in reported
    ]


@pytest.mark.parametrize("name", ["surrogate", "evolution", "tpe", "random"])
@pytest.mark.parametrize("several", [False, True], ids=["one budget", "several budgets"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, Interrupted, RuntimeError])
def test_a_stopped_search_goes_on_and_scores_nothing_twice(
    feasible, space, latency_ms, smooth, tmp_path, name, several, stop
):
    if several:
        feasible = FeasibleSet(space, latency_ms, Budgets(latency_ms=(1.1, 1.5)), 1.0)
    whole = search(feasible, smooth, tmp_path / "whole.jsonl", name=name)
    stopped, again = Counted(smooth, 7, stop), Counted(smooth)
    with pytest.raises(stop):
        search(feasible, stopped, tmp_path / "parts.jsonl", name=name)
    assert search(feasible, again, tmp_path / "parts.jsonl", name=name) == whole
    assert len(stopped.scored) == 7
    assert len(again.scored) == 13
    assert not set(stopped.scored) & set(again.scored)
    never = Counted(smooth, 0)
    assert search(feasible, never, tmp_path / "parts.jsonl", name=name) == whole


def test_all_of_a_stopped_search_goes_on(feasible, smooth, path):
    count = len(feasible.indices)
    stopped, again = Counted(smooth, 7), Counted(smooth)
    with pytest.raises(KeyboardInterrupt):
        search(feasible, stopped, path, count, "exhaustive")
    assert len(search(feasible, again, path, count, "exhaustive")) == count
    assert not set(stopped.scored) & set(again.scored)
    assert len(again.scored) == count - 7


def test_more_evaluations_keep_the_former_trials(feasible, smooth, path):
    """Chance proposes in the same order, however long; what is known is not scored again."""
    search(feasible, smooth, path, 10, "random")
    more = Counted(smooth)
    assert len(search(feasible, more, path, 25, "random")) == 25
    assert len(more.scored) == 15


def test_ends_when_all_are_evaluated(feasible, smooth, path):
    count = len(feasible.indices)
    trials = search(feasible, smooth, path, count + 50)
    assert {trial.architecture for trial in trials} == {
        feasible.space.architecture(int(index)) for index in feasible.indices
    }


def test_costs_are_those_of_now(feasible, space, smooth, path):
    """A corrected table may have changed predictions since a trial was kept."""
    former = Trial(space.architecture(int(feasible.indices[0])), 0.25, 99.0, 1.0, 1.0)
    TrialLog(path, feasible.space, {}).add(former)
    trials = search(feasible, smooth, path, len(feasible.indices))
    (found,) = (trial for trial in trials if trial.architecture == former.architecture)
    assert found.agreement == 0.25
    assert found.latency_ms == feasible.cost("latency_ms", former.architecture)


def test_the_strategy_is_closed_whatever_happens(feasible, path):
    class Watched:
        """Notes that it was closed."""

        closed = False

        def __init__(self):
            self.inner = RandomStrategy(feasible, 0, 4)

        def ask(self):
            return self.inner.ask()

        def tell(self, scores):
            self.inner.tell(scores)

        def close(self):
            self.closed = True

    watched = Watched()
    with pytest.raises(ZeroDivisionError):
        run_search(
            feasible, watched, lambda architectures: 1 / 0, TrialLog(path, feasible.space, {}), 5
        )
    assert watched.closed


def dominated(trial, others):
    return any(
        other.latency_ms <= trial.latency_ms
        and other.agreement >= trial.agreement
        and (other.latency_ms, other.agreement) != (trial.latency_ms, trial.agreement)
        for other in others
    )


@pytest.mark.parametrize("seed", range(5))
def test_front_equals_brute_force(space, seed):
    rng = random.Random(seed)
    figures = {(rng.randrange(8) / 8, rng.randrange(8) / 8) for _ in range(30)}
    trials = [
        Trial(space.architecture(i), agreement, latency_ms, 1.0, 1.0)
        for i, (agreement, latency_ms) in enumerate(sorted(figures))
    ]
    rng.shuffle(trials)
    front = pareto_front(trials)
    expected = [trial for trial in trials if not dominated(trial, trials)]
    assert front == sorted(expected, key=lambda trial: trial.latency_ms)


def test_of_equal_trials_one_is_on_the_front(space):
    same = [Trial(space.architecture(i), 0.5, 1.0, 1.0, 1.0) for i in range(3)]
    assert len(pareto_front(same)) == 1
    assert pareto_front([]) == []
