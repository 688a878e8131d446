"""What is bounded, as values."""

import pytest

from edgesearch.errors import SearchError
from edgesearch.search.budgets import Budgets, LatencyBudgets, Range


def test_a_range_that_holds_nothing_is_refused():
    with pytest.raises(SearchError, match="min is at most its max; found: min 5 and max 3. Swap"):
        Range(5, 3)
    assert Range(3, 3).ends == (3, 3)


def test_an_empty_list_is_refused():
    with pytest.raises(SearchError, match="at least one budget in the list latency_ms; found: an"):
        Budgets(latency_ms=())


def test_what_binds_is_named_by_its_key():
    budgets = Budgets(
        latency_ms=2.0,
        macs=Range(1, None),
        params=Range(),
        devices={"board": LatencyBudgets(latency_p95_ms=7.0)},
    )
    assert budgets.ranges() == {
        "latency_ms": Range(max=2.0),
        "macs": Range(1, None),
        "devices.board.latency_p95_ms": Range(max=7.0),
    }


def test_a_list_is_one_budget_after_the_other():
    budgets = Budgets(latency_ms=(5.0, 2.0, 5.0), macs=9.0)
    each = (Budgets(latency_ms=5.0, macs=9.0), Budgets(latency_ms=2.0, macs=9.0))
    assert budgets.each() == each
    assert each[0].each() == (each[0],)
