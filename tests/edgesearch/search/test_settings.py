"""Budgets as values; faults of what a user writes are tested in `config`."""

from edgesearch.search.settings import Budgets, DeviceBudgets, Range


def test_what_binds_is_named_by_its_key():
    budgets = Budgets(
        latency_ms=2.0,
        macs=Range(min=1),
        params=Range(),
        devices={"raspberry-pi-5": DeviceBudgets(latency_p95_ms=7.0)},
    )
    assert budgets.ranges() == {
        "latency_ms": Range(max=2.0),
        "macs": Range(min=1),
        "devices.raspberry-pi-5.latency_p95_ms": Range(max=7.0),
    }
    assert Range(min=3, max=3).ends == (3, 3)


def test_a_list_is_one_budget_after_the_other():
    budgets = Budgets(latency_ms=(5.0, 2.0, 5.0), macs=9.0)
    each = (Budgets(latency_ms=5.0, macs=9.0), Budgets(latency_ms=2.0, macs=9.0))
    assert budgets.each() == each
    assert each[0].each() == (each[0],)
