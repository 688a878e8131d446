"""The order of the leaders: when it is settled, and how sure one is."""

import json

import numpy as np
import pytest
import torch

from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.search.ranking import Interval, compare_domains, settle

SPACE = ResNetSpace("toy", "basic", "small", (4, 8, 12), ((4, 8),), ((1, 2, 3),), (16,))
CONTENDERS = [SPACE.architecture(index) for index in range(6)]


def scores_of(means, chance, images=4096, seed=0):
    """Figures with large differences between images that all contenders share."""
    generator = torch.Generator().manual_seed(seed)
    of_images = 0.2 * torch.randn(images, generator=generator, dtype=torch.float64)
    own = chance * torch.randn(len(means), images, generator=generator, dtype=torch.float64)
    return dict(zip(CONTENDERS, torch.tensor(means)[:, None] + of_images + own, strict=False))


class Drawn:
    """Gives scores, and remembers how many images were drawn."""

    def __init__(self, scores):
        self.scores, self.images = scores, []

    def __call__(self, architectures, images):
        self.images.extend([images] * len(architectures))
        return [self.scores[architecture][:images] for architecture in architectures]


def settled(means, chance, winners=1, first=32, most=1024, **options):
    drawn = Drawn(scores_of(means, chance))
    ranking = settle(drawn, list(drawn.scores), winners, first=first, most=most, **options)
    return ranking, drawn


def test_interval_equals_scipys():
    from scipy import stats

    figures = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = Interval.of(figures, 0.9)
    mean, error = float(figures.mean()), stats.sem(figures.numpy())
    assert found.mean == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.9, 39, mean, error))


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    intervals = [Interval.of(torch.from_numpy(rng.normal(3, 1, 20)), 0.9) for _ in range(2000)]
    share = np.mean([interval.low <= 3 <= interval.high for interval in intervals])
    assert share == pytest.approx(0.9, abs=0.025)


def test_stops_as_soon_as_the_winner_is_clear():
    ranking, drawn = settled([0.5, 0.7, 0.6], chance=0.01)
    assert (ranking.images, ranking.settled) == (32, True)
    assert drawn.images == [32] * 3
    assert [leader.architecture for leader in ranking.leaders] == [
        CONTENDERS[1],
        CONTENDERS[2],
        CONTENDERS[0],
    ]
    for leader in ranking.leaders:
        assert leader.agreement == Interval.of(drawn.scores[leader.architecture][:32])


def test_the_closer_the_leaders_the_more_images():
    counts = [settled([0.7, 0.7 - gap, 0.3], 0.05)[0].images for gap in (0.1, 0.02, 0.008)]
    assert counts[0] == 32 < counts[1] < counts[2] < 1024


def test_differences_are_paired():
    """The figures' own intervals overlap by far; the differences leave no doubt."""
    ranking, _ = settled([0.700, 0.690], chance=0.001)
    first, second = (leader.agreement for leader in ranking.leaders)
    assert ranking.settled
    assert ranking.images == 32
    assert second.high > first.mean
    assert first.low < second.mean


def test_ends_at_the_bound_and_says_so():
    ranking, drawn = settled([0.7, 0.7, 0.3], chance=0.05, most=300)
    assert (ranking.images, ranking.settled) == (300, False)
    assert sorted(set(drawn.images)) == [32, 64, 128, 256, 300]


def test_only_winners_have_to_be_told_apart():
    means = [0.9, 0.8, 0.5, 0.5]
    assert settled(means, 0.02, winners=2)[0].settled
    assert not settled(means, 0.02, winners=3)[0].settled


def test_false_winners_are_as_rare_as_promised():
    """Of two equal candidates either is called better in at most a share of 5 % of the races."""
    false = 0
    for seed in range(300):
        scores = scores_of([0.5, 0.5], 0.05, images=256, seed=seed)
        false += settle(Drawn(scores), list(scores), 1, first=16, most=256).settled
    assert false / 300 <= 0.05 + 0.025


def test_one_contender_is_settled():
    ranking, _ = settled([0.5], 0.1)
    assert ranking.settled
    assert ranking.images == 32


def test_plain_values():
    ranking, _ = settled([0.5, 0.7], 0.01)
    found = json.loads(json.dumps(ranking.to_dict()))
    assert (found["images"], found["settled"], found["confidence"]) == (32, True, 0.95)
    assert found["leaders"][0]["architecture"] == dict(CONTENDERS[1])
    assert found["leaders"][0]["low"] == ranking.leaders[0].agreement.low


class TestDomains:
    def compared(self, first, second, chance=0.01):
        of_first, of_second = (
            scores_of(means, chance, images=128, seed=seed)
            for seed, means in enumerate((first, second))
        )
        winners = (CONTENDERS[int(np.argmax(first))], CONTENDERS[int(np.argmax(second))])
        return compare_domains(of_first.__getitem__, of_second.__getitem__, winners)

    def test_differ(self):
        found = self.compared([0.6, 0.5], [0.4, 0.5])
        assert found.differ
        assert str(found).startswith(f"the domains differ: {CONTENDERS[0]} and {CONTENDERS[1]}; ")
        assert [p.mean for p in found.preferences] == pytest.approx([0.1, 0.1], abs=0.01)

    @pytest.mark.parametrize("second", [[0.4, 0.4001], [0.3999, 0.4]])
    def test_within_the_intervals(self, second):
        """One domain knows what it wants, the other does not mind."""
        found = self.compared([0.6, 0.5], second, 0.05)
        assert not found.differ
        assert "the domains agree within the intervals: " in str(found)
        assert found.preferences[0].low > 0

    def test_the_same_winner(self):
        found = self.compared([0.6, 0.5], [0.7, 0.5])
        assert not found.differ
        assert str(found) == f"the domains agree: {CONTENDERS[0]} is the winner of both"
