"""A search: its trials, its winners and what it writes, with a made-up score."""

import json
import random

import pytest
import torch
from matplotlib.figure import Figure

from edgesearch.errors import Interrupted, SearchError
from edgesearch.search.files import SearchFiles
from edgesearch.search.images_needed import ImagesNeeded
from edgesearch.search.pareto import pareto_front
from edgesearch.search.search import Search
from edgesearch.search.settings import Budgets, DeviceBudgets, SearchSettings
from edgesearch.search.trial_log import Trial, TrialLog
from edgesearch.search.winners import Winner, Winners

SCORED_WITH = {"search.images": 128}
BOARD = "raspberry-pi-5"


class Scores:
    """Figures of images around a candidate's score; remembers, and may stop the search."""

    def __init__(self, score, stop_after=10**6, stop=KeyboardInterrupt, chance=0.0):
        self.score, self.stop_after, self.stop, self.chance = score, stop_after, stop, chance
        self.scored = []

    def __call__(self, architectures, images):
        for architecture in architectures:
            if len(self.scored) == self.stop_after:
                raise self.stop
            self.scored.append(architecture)
            generator = torch.Generator().manual_seed(sum(architecture.values()))
            noise = torch.randn(128, generator=generator, dtype=torch.float64)
            yield self.score(architecture) + self.chance * noise[:images]


@pytest.fixture
def make(feasible, tmp_path):
    """A search in a folder of its own; `told` has what it says."""

    def make(scores_on, name="surrogate", evaluations=20, of=feasible, folder="search", **options):
        settings = SearchSettings(strategy=name, evaluations=evaluations, **options)
        search = Search(
            of,
            settings,
            SearchFiles(tmp_path / folder),
            scores_on,
            first_images=16,
            most_images=128,
            scored_with=SCORED_WITH,
            report=lambda event: search.told.append(event),
        )
        search.told = []
        return search

    return make


class TestTrials:
    def test_are_ranked_and_carry_their_costs(self, make, feasible, smooth):
        search = make(Scores(smooth))
        trials = search.make_trials(16)
        assert len(trials) == len({trial.architecture for trial in trials}) == 20
        assert trials == sorted(trials, key=lambda trial: -trial.agreement)
        for trial in trials:
            assert trial.agreement == smooth(trial.architecture)
            assert trial.latency_ms == feasible.cost("latency_ms", trial.architecture) <= 1.5
            assert trial.params == feasible.space.params(trial.architecture)
            assert trial.macs == feasible.space.macs(trial.architecture)
        assert [event.done for event in search.told] == list(range(1, 21))
        log = TrialLog(search.files.trials, feasible.space, {**SCORED_WITH, "number of images": 16})
        assert sorted(log.trials.values(), key=lambda trial: -trial.agreement) == trials

    @pytest.mark.parametrize("name", ["surrogate", "evolution", "tpe", "random"])
    @pytest.mark.parametrize("several", [False, True], ids=["one budget", "several budgets"])
    def test_a_stopped_search_goes_on_and_scores_nothing_twice(
        self, make, make_feasible, latency_ms, feasible, smooth, name, several
    ):
        of = make_feasible(latency_ms, Budgets(latency_ms=(1.1, 1.5))) if several else feasible
        whole = make(Scores(smooth), name, of=of, folder="whole").make_trials(16)
        stopped, again = Scores(smooth, 7, RuntimeError), Scores(smooth)
        with pytest.raises(RuntimeError):
            make(stopped, name, of=of).make_trials(16)
        assert make(again, name, of=of).make_trials(16) == whole
        assert (len(stopped.scored), len(again.scored)) == (7, 13)
        assert not set(stopped.scored) & set(again.scored)
        assert make(Scores(smooth, 0), name, of=of).make_trials(16) == whole

    def test_more_evaluations_keep_the_former_trials(self, make, smooth):
        """Chance proposes in the same order, however long; what is known is not scored again."""
        make(Scores(smooth), "random", 10).make_trials(16)
        more = Scores(smooth)
        assert len(make(more, "random", 25).make_trials(16)) == 25
        assert len(more.scored) == 15

    def test_end_when_all_are_evaluated(self, make, feasible, smooth):
        trials = make(Scores(smooth), evaluations=feasible.count.number + 50).make_trials(16)
        assert {trial.architecture for trial in trials} == set(feasible)

    def test_costs_are_those_of_now(self, make, feasible, smooth):
        """A corrected table may have changed predictions since a trial was kept."""
        search = make(Scores(smooth), evaluations=feasible.count.number)
        former = Trial(next(iter(feasible)), 0.25, 99.0, 1.0, 1.0)
        identity = {**SCORED_WITH, "number of images": 16}
        TrialLog(search.files.trials, feasible.space, identity).add(former)
        (found,) = (
            trial for trial in search.make_trials(16) if trial.architecture == former.architecture
        )
        assert found.agreement == 0.25
        assert found.latency_ms == feasible.cost("latency_ms", former.architecture)

    def test_scores_of_former_searches_are_taken_over(self, make, smooth):
        make(Scores(smooth), "random", folder="search.1").make_trials(16)
        search = make(Scores(smooth, 0), "random")
        search.make_trials(16)
        assert search.told[0].message.startswith("reusing 20 scores of a former search")


class TestNumberOfImages:
    def test_is_found_and_kept(self, make, smooth):
        search = make(Scores(smooth, chance=0.5))
        found = search.choose_images()
        assert 16 <= found.images <= 128
        kept = json.loads(search.files.images_needed.read_text("utf-8"))
        assert (kept["images"], kept["reliability"]) == (found.images, found.reliability)
        assert search.told[0].message.startswith(
            f"scoring on {found.images} of at most 128 images (reliability "
        )

    @pytest.mark.parametrize("folder", ["search", "search.1"])
    def test_is_kept_by_a_search_that_scores_alike(self, make, smooth, folder):
        search, former = make(Scores(smooth, 0)), make(None, folder=folder).files.images_needed
        former.parent.mkdir()
        kept = {"images": 48, "reliability": 0.5, "score": SCORED_WITH}
        former.write_text(json.dumps(kept), "utf-8")
        assert search.choose_images() == ImagesNeeded(48, 0.5)
        assert json.loads(search.files.images_needed.read_text("utf-8")) == kept

    def test_of_another_score_is_not_taken_over(self, make, smooth):
        search, former = make(Scores(smooth)), make(None, folder="search.1").files.images_needed
        former.parent.mkdir()
        kept = {"images": 48, "reliability": 0.5, "score": {"search.images": 64}}
        former.write_text(json.dumps(kept), "utf-8")
        assert search.choose_images().images == 16


class TestWinners:
    def test_the_best_are_ranked_anew_and_the_rest_stays(self, make, smooth):
        search = make(Scores(smooth, chance=0.7), winners=1, reserves=2)
        trials = search.make_trials(16)
        ((ranked, ranking),) = search.settle(trials, 16)
        assert {t.architecture for t in ranked[:3]} == {t.architecture for t in trials[:3]}
        assert ranked[3:] == trials[3:]
        assert ranked[:3] == sorted(ranked[:3], key=lambda t: -t.agreement)
        for trial in ranked[:3]:
            (figures,) = Scores(smooth, chance=0.7)([trial.architecture], ranking.images)
            assert trial.agreement == pytest.approx(float(figures.mean()))
        assert f"candidates on {ranking.images} images: " in search.told[-1].message

    def test_and_reserves_are_of_their_budget(self, make, make_feasible, latency_ms, smooth):
        of = make_feasible(latency_ms, Budgets(latency_ms=(1.2, 1.9), latency_p95_ms=2.0))
        search = make(Scores(smooth), "random", 40, of=of, winners=1, reserves=2)
        winners = search.run()
        assert Winners.load(search.files.chosen, of.space) == winners
        best = make(Scores(smooth, 0), "random", 40, of=of).make_trials(16)
        assert [w.name for w in winners.winners] == ["w0", "w1"]
        assert [w.name for w in winners.reserves] == ["r0", "r1", "r2", "r3"]
        reserves = winners.reserves[:2], winners.reserves[2:]
        for part, winner, kept in zip(of.parts, winners.winners, reserves, strict=True):
            within = [trial for trial in best if trial.architecture in part]
            assert [w.agreement for w in (winner, *kept)] == [t.agreement for t in within[:3]]
            for one in (winner, *kept):
                latency = part.cost("latency_ms", one.architecture)
                assert one.latency_ms["local-cpu"] == {
                    "predicted": latency,
                    "predicted_p95": 1.25 * latency,
                    "budget": part.budgets.latency_ms,
                    "budget_p95": 2.0,
                    "latency_of": "backbone",
                }
                low, high = one.agreement_interval
                assert low <= one.agreement <= high
                assert 16 <= one.agreement_images <= 128
                read = Winner.from_dict(json.loads(json.dumps(one.to_dict())), of.space)
                assert read == one
        ranking = json.loads(search.files.ranking.read_text("utf-8"))
        assert len(ranking["rankings"]) == 2
        assert ranking["settled"] == all(each["settled"] for each in ranking["rankings"])

    def test_a_budget_without_a_candidate_is_named(self, make, make_feasible, latency_ms, smooth):
        of = make_feasible(latency_ms, Budgets(latency_ms=(1.2, 1.9)))
        slow = [Trial(a, 0.9, 1.5, 1.0, 1.0) for a in of if a not in of.parts[0]][:1]
        message = "each of 2 budgets; found: none within search.budgets.latency_ms 1.2 among 1 that"
        with pytest.raises(SearchError, match=message):
            make(Scores(smooth), of=of).settle(slow, 16)


def test_a_stopped_search_says_where_its_trials_are(make, smooth):
    with pytest.raises(Interrupted, match=r"search stopped; its trials are in .*trials.jsonl"):
        make(Scores(smooth, 12)).run()


def test_files_tell_of_each_device(make, make_feasible, latency_ms, smooth, monkeypatch):
    budgets = Budgets(latency_ms=(1.3, 1.9), devices={BOARD: DeviceBudgets(latency_ms=5.9)})
    of = make_feasible(latency_ms, budgets, {BOARD: (3 * latency_ms[::-1], 1.2)})
    shown = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: shown.extend(figure.axes))
    search = make(Scores(smooth), "random", of=of)
    winners = search.run().architectures.values()
    trials = make(Scores(smooth, 0), "random", of=of).make_trials(16)
    facts = json.loads(search.files.pareto.read_text("utf-8"))
    assert (facts["feasible"], facts["estimated_from"]) == (of.count.number, None)
    assert facts["latency_budget_ms"] == [1.3, 1.9]

    def points(axes, label):
        lines = [line for line in axes.get_lines() if line.get_label() == label]
        return {(float(x), float(y)) for line in lines for x, y in line.get_xydata()}

    for axes, device, name, bounds in zip(
        shown, ("local-cpu", BOARD), of.costs.latencies.values(), ({1.3, 1.9}, {5.9}), strict=True
    ):
        seen = {t.architecture: (of.cost(name, t.architecture), t.agreement) for t in trials}
        assert points(axes, "trials") == set(seen.values())
        assert points(axes, "winners") == {seen[each] for each in winners}
        front = {(t["latency_ms"], t["agreement"]) for t in facts["fronts"][device]}
        assert points(axes, "Pareto front") == front
        assert front <= set(seen.values())
        assert {x for x, _ in points(axes, "budget")} == bounds
        assert axes.get_xlabel() == f"predicted median on {device} (ms)"


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
    expected = [trial for trial in trials if not dominated(trial, trials)]
    assert pareto_front(trials) == sorted(expected, key=lambda trial: trial.latency_ms)
    assert len(pareto_front([trials[0]] * 3)) == 1
    assert pareto_front([]) == []
