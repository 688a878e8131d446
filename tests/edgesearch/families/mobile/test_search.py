"""The default strategy in a space of 10^8 mobile networks, with a made-up score."""

import itertools

import numpy as np

from devices import DeviceSpec
from edgesearch.families import load_space
from edgesearch.search.costs import Costs, DeviceLatencies
from edgesearch.search.feasible import DrawnSet, find_feasible
from edgesearch.search.settings import Budgets
from edgesearch.search.strategies.surrogate import SurrogateStrategy

SPACE = load_space("mobile_v4", resolutions=[160])


def made_up_score(rng):
    """Sums of effects of each choice, most of which rise with its value, and of some pairs."""
    effects = {
        (name,): np.cumsum(rng.exponential(1, len(values))) * rng.choice([1, 1, 1, -0.3])
        for name, values in SPACE.choices.items()
    }
    for pair in itertools.combinations(SPACE.choices, 2):
        if rng.random() < 0.1:
            effects[pair] = rng.normal(0, 0.5, [len(SPACE.choices[name]) for name in pair])

    def score(architecture):
        digits = dict(zip(SPACE.choices, SPACE.to_digits([architecture])[0], strict=True))
        return float(sum(table[(*map(digits.get, names),)] for names, table in effects.items()))

    return score


def test_finds_within_100_what_1000_drawn_at_random_hold():
    assert SPACE.size > 10**8
    latency_ms = SPACE.sums(lambda block: 0.01 + block.macs / 1e8 + block.params / 1e7)
    costs = Costs(SPACE, DeviceSpec("local-cpu"), DeviceLatencies(latency_ms, 1.05))
    largest_ms = latency_ms(SPACE.to_digits([SPACE.largest]))[0]
    feasible = find_feasible(costs, Budgets(latency_ms=0.5 * largest_ms))
    assert isinstance(feasible, DrawnSet)
    score = made_up_score(np.random.default_rng(0))
    drawn = max(map(score, itertools.islice(feasible.in_random_order(0), 1000)))
    strategy, found = SurrogateStrategy(feasible, 0, 4), {}
    while len(found) < 100:
        scores = {architecture: score(architecture) for architecture in strategy.ask()}
        strategy.tell(scores)
        found |= scores
    assert max(found.values()) >= drawn
    assert all(architecture in feasible for architecture in found)
