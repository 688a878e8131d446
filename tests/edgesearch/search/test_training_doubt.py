"""When a supernet counts as hardly trained."""

import pytest

from edgesearch.search.settings import Budgets, Range
from edgesearch.search.training_doubt import TrainingCheck


@pytest.mark.parametrize(
    ("check", "doubted"),
    [
        # Digits: after 5 epochs worse than the initial weights, after 10 better.
        (TrainingCheck(0.386, 0.705, 0.727, 359), True),
        (TrainingCheck(-0.07, 0.813, 0.727, 359), False),
        (TrainingCheck(0.53, 0.394, 0.302, 1000), False),  # CIFAR-10
        (TrainingCheck(0.1, 0.76, 0.727, 359), True),  # by less than a standard error
        (TrainingCheck(1.0), True),
        (TrainingCheck(0.67), True),
        (TrainingCheck(0.53), False),
        # By a teacher: better than random weights by more than a standard error.
        (TrainingCheck(0.70, ahead=0.05, ahead_error=0.01), False),
        (TrainingCheck(0.70, ahead=0.05, ahead_error=0.06), True),
    ],
)
def test_by_labels_or_else_by_the_distance_from_the_initial_weights(check, doubted):
    assert bool(check.doubt) == doubted
    if doubted:
        figures = ("70.5%", "72.7%", "76.0%", "agreement of 1.00", "agreement of 0.67", "0.750")
        assert any(figure in check.doubt for figure in figures)


def test_every_budget_is_named():
    budgets = Budgets(
        latency_ms=(5.0, 10.0),
        params=Range(min=5.0, max=1e6),
        macs=3e6,
        activation_bytes=Range(min=7.0),
        weight_bytes=9.0,
        devices={"raspberry-pi-5": {"latency_ms": 20.0}},
    )
    assert budgets.words() == [
        "latency ≤ 5.000 or 10.000 ms, separate budgets",
        "5 ≤ parameters ≤ 1,000,000",
        "MACs ≤ 3,000,000",
        "7 bytes ≤ activations",
        "weights ≤ 9 bytes",
        "latency on raspberry-pi-5 ≤ 20.000 ms",
    ]
    assert set(budgets.without_latency().ranges()) == {
        "params",
        "macs",
        "activation_bytes",
        "weight_bytes",
    }
