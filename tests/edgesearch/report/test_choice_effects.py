"""What each choice does, from trials."""

import random

import pytest

from edgesearch.report.choice_effects import choice_effects
from edgesearch.search.trial_log import Trial

ADDED = {"stem_width": 0.01, "stage1_width": 0.0, "stage2_width": 0.03}
ADDED_MS = {"stem_width": 0.1, "stage1_width": 0.7, "stage2_width": 0.2}


def trials_of(space, count, noise=0.0):
    """Trials whose agreement and latency are sums over the choices, those below at their least."""
    rng = random.Random(0)
    found = []
    for _ in range(count):
        architecture = space.sample(rng)
        larger = [name for name in ADDED if architecture[name] != space.smallest[name]]
        agreement = 0.9 + sum(ADDED[name] for name in larger) + rng.gauss(0, noise)
        latency_ms = 1 + sum(ADDED_MS[name] for name in larger)
        found.append(Trial(architecture, agreement, latency_ms, 1.0, 1.0))
    return found


def test_finds_what_the_trials_were_made_of(space):
    effects = {effect.choice: effect for effect in choice_effects(trials_of(space, 60))}
    assert set(effects) == {name for name, values in space.choices.items() if len(values) > 1}
    assert next(iter(effects)) == "stage2_width", "the largest effect comes first"
    for choice, effect in effects.items():
        smallest, larger = effect.values
        assert (smallest.agreement, smallest.latency_ms) == (0, 0)
        assert larger.agreement == pytest.approx(ADDED.get(choice, 0), abs=1e-9)
        assert larger.latency_ms == pytest.approx(ADDED_MS.get(choice, 0), abs=1e-9)
        assert smallest.trials + larger.trials == 60


def test_intervals_hold_the_truth_as_often_as_they_say(space):
    inside = tried = 0
    for effect in choice_effects(trials_of(space, 200, noise=0.01)):
        for value in effect.values[1:]:
            tried += 1
            error = abs(value.agreement - ADDED.get(effect.choice, 0))
            inside += error <= value.agreement_error
            assert 0.001 < value.agreement_error < 0.01
    assert tried == 5
    assert inside >= 4


def test_few_trials_give_no_effects(space):
    assert choice_effects(trials_of(space, 10)) == ()
    assert choice_effects([]) == ()


def test_choices_that_the_trials_do_not_separate_give_no_effects(space):
    ends = [
        Trial(architecture, 0.9, 1.0, 1.0, 1.0)
        for architecture in (space.smallest, space.largest)
        for _ in range(60)
    ]
    assert choice_effects(ends) == ()


def test_a_value_of_a_single_trial_is_left_out_with_it(space):
    trials = trials_of(space, 60)
    others = [t for t in trials if t.architecture["stem_width"] == space.smallest["stem_width"]]
    single = next(t for t in trials if t.architecture["stem_width"] == space.largest["stem_width"])
    effects = choice_effects([*others, single])
    assert effects
    assert "stem_width" not in {effect.choice for effect in effects}
