"""Bounds in words, and as the search knows them."""

import pytest

from edgesearch.cli.budgets import budget_arguments, describe_bound
from edgesearch.config import load_config
from edgesearch.search.budgets import LatencyBudgets, Range


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        (2, "latency ≤ 2.000 ms"),
        ([2.0, 5.0], "latency ≤ 2.000 and 5.000 ms, each by itself"),
        ({"min": 1.0, "max": 2.0}, "1.000 ms ≤ latency ≤ 2.000 ms"),
        ({"min": 1.0, "max": None}, "1.000 ms ≤ latency"),
    ],
)
def test_a_bound_is_described(bound, text):
    assert describe_bound("latency", bound) == text


def test_every_form_of_a_budget_is_understood():
    text = (
        "search.budgets={latency_ms: [5, 10], params: 1000, macs: {min: 10}, "
        "devices: {raspberry-pi-5: {latency_p95_ms: {max: 7}, threads: 4}}}"
    )
    config = load_config("cifar10", ["data.root=images", text])
    arguments = budget_arguments(config.search.budgets)
    budgets = arguments["budgets"]
    assert (budgets.latency_ms, budgets.params, budgets.macs) == ((5, 10), 1000, Range(min=10))
    assert budgets.devices == {"raspberry-pi-5": LatencyBudgets(None, Range(max=7))}
    (board,) = arguments["further_devices"]
    assert (board.name, board.threads, board.hosts) == ("raspberry-pi-5", 4, ())
