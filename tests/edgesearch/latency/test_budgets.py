"""Which budgets a winner's figures keep, and what is said of those that they break."""

import pytest

from edgesearch.latency.budgets import (
    MEDIAN,
    P95,
    broken_budgets,
    describe_broken,
    describe_budgets,
    fits_as_measured,
    fits_as_predicted,
    have_same_budgets,
)

FIGURES = {
    "predicted": 2.0,
    "predicted_p95": 3.0,
    "measured_p50": 2.2,
    "interval": [2.1, 2.3],
    "measured_p95": 3.2,
    "interval_p95": [3.1, 3.3],
}


@pytest.mark.parametrize(
    ("budgets", "broken"),
    [
        ({"budget": None, "budget_p95": None}, []),
        ({"budget": 2.1, "budget_p95": 3.1}, []),  # the lower end is just within
        ({"budget": 2.09, "budget_p95": 3.1}, [MEDIAN]),
        ({"budget": 2.1, "budget_p95": 3.09}, [P95]),
        ({"budget": 2.0, "budget_p95": 3.0}, [MEDIAN, P95]),
        ({"budget": None, "budget_p95": 1.0}, [P95]),
        ({"budget": 1.0}, [MEDIAN]),  # as earlier versions wrote it
    ],
)
def test_a_budget_is_broken_if_the_lower_end_is_above(budgets, broken):
    assert broken_budgets({**FIGURES, **budgets}) == broken


@pytest.mark.parametrize(
    ("budgets", "fits"),
    [
        ({"budget": None, "budget_p95": None}, True),
        ({"budget": 2.0, "budget_p95": 3.0}, True),
        ({"budget": 1.99, "budget_p95": 3.0}, False),
        ({"budget": 2.0, "budget_p95": 2.99}, False),
        ({"budget": None, "budget_p95": 2.99}, False),
        ({"budget": 2.0}, True),
    ],
)
def test_both_predictions_have_to_fit(budgets, fits):
    assert fits_as_predicted({**FIGURES, **budgets}) == fits


@pytest.mark.parametrize(
    ("budgets", "fits"),
    [
        ({"budget": None, "budget_p95": None}, True),
        ({"budget": 2.2, "budget_p95": 3.2}, True),
        ({"budget": 2.19, "budget_p95": 3.2}, False),  # which its interval would allow
        ({"budget": 2.2, "budget_p95": 3.19}, False),
    ],
)
def test_what_seems_to_be_over_is_measured_on(budgets, fits):
    assert fits_as_measured({**FIGURES, **budgets}) == fits


def test_each_broken_budget_is_named_with_its_figures():
    both = {**FIGURES, "budget": 2.0, "budget_p95": 2.5}
    assert describe_broken(both) == (
        "its measured median of 2.200 ms (at least 2.100) is over the budget of 2.000 ms and its "
        "measured 95th percentile of 3.200 ms (at least 3.100) is over the budget of 2.500 ms"
    )
    assert describe_budgets(both) == (
        "a median within 2.000 ms and a 95th percentile within 2.500 ms"
    )
    assert describe_budgets({**FIGURES, "budget_p95": 2.5}) == "a 95th percentile within 2.500 ms"


def test_a_reserve_is_for_a_budget():
    bounded = {**FIGURES, "budget": 2.0, "budget_p95": None}
    assert have_same_budgets(bounded, {"predicted": 9.0, "budget": 2.0})
    assert not have_same_budgets(bounded, {**bounded, "budget": 3.0})
    assert not have_same_budgets(bounded, {**bounded, "budget_p95": 3.0})
