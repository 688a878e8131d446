"""Which architectures keep budgets, and what is said when none does; laid out, and drawn."""

from types import SimpleNamespace

import numpy as np
import pytest

from edgesearch.errors import InfeasibleError
from edgesearch.search.infeasible import attainable, number
from edgesearch.search.settings import Budgets, DeviceBudgets, Range

P95_RATIO = 1.25
pytestmark = pytest.mark.usefixtures("as_small_or_large")


@pytest.fixture(scope="module")
def all_of(space):
    """All architectures of the space, with what they cost."""
    architectures = [space.architecture(index) for index in range(space.size)]
    return SimpleNamespace(
        architectures=architectures,
        macs=np.array([space.macs(each) for each in architectures]),
        params=np.array([space.params(each) for each in architectures]),
    )


@pytest.fixture
def check(all_of):
    """Whatever way it is asked, a set has just what is expected."""

    def check(feasible, expected):
        assert sum(expected) > 0
        assert [each in feasible for each in all_of.architectures] == list(expected)
        wanted = [each for each, kept in zip(all_of.architectures, expected, strict=True) if kept]
        space = feasible.space
        assert set(feasible.in_random_order(0)) == set(wanted)
        some = feasible.some(64, np.random.default_rng(0))
        assert {space.from_digits(row) for row in some} <= set(wanted)
        assert len(some) == 64 or len(some) == len(wanted)
        if feasible.count.drawn is None:
            assert list(feasible) == wanted
            assert feasible.count.number == len(wanted)
            assert feasible.are_at_most(len(wanted))
            assert not feasible.are_at_most(len(wanted) - 1)
        else:
            assert feasible.count.number == pytest.approx(len(wanted), rel=0.2, abs=3)

    return check


@pytest.mark.parametrize(
    "budgets",
    [
        Budgets(),
        Budgets(latency_ms=1.4, latency_p95_ms=1.6),
        Budgets(params=4000.0),
        Budgets(latency_ms=1.6, params=20_000.0, macs=500_000.0),
        Budgets(macs=Range(min=200_000, max=400_000)),
        Budgets(macs=Range(min=400_000)),
        Budgets(latency_ms=1.01),
    ],
)
def test_equals_brute_force(make_feasible, latency_ms, all_of, check, budgets):
    expected = np.ones(len(latency_ms), bool)
    values = {"latency_ms": latency_ms, "latency_p95_ms": P95_RATIO * latency_ms}
    values |= {"params": all_of.params, "macs": all_of.macs}
    for name, bound in budgets.ranges().items():
        low, high = bound.ends
        expected &= (low <= values[name]) & (values[name] <= high)
    check(make_feasible(latency_ms, budgets), expected)


def test_a_budget_that_is_just_met_is_met(space, make_feasible, latency_ms):
    feasible = make_feasible(latency_ms, Budgets(params=space.params(space.smallest)))
    assert list(feasible.in_random_order(0)) == [space.smallest]


def test_costs_are_those_of_the_architecture(space, make_feasible, latency_ms):
    feasible = make_feasible(latency_ms, precision="int8", batch=3)
    architecture = space.architecture(100)
    live = max(block.live_values for block in space.blocks(architecture))
    expected = {
        "latency_ms": latency_ms[100],
        "latency_p95_ms": P95_RATIO * latency_ms[100],
        "params": space.params(architecture),
        "macs": space.macs(architecture),
        "activation_bytes": 3 * live,
        "weight_bytes": space.params(architecture),
    }
    assert {name: feasible.cost(name, architecture) for name in expected} == expected


def test_what_the_device_cannot_run_is_left_out(space, make_feasible, latency_ms, check):
    partly = latency_ms.copy()
    partly[::2] = np.inf
    feasible = make_feasible(partly)
    check(feasible, np.isfinite(partly))
    assert feasible.cannot_run.number == pytest.approx(space.size / 2, rel=0.05)


def test_further_devices_bind_too(space, make_feasible, latency_ms, check):
    board_ms = latency_ms[::-1].copy()
    board_ms[0] = np.inf
    bounds = DeviceBudgets(latency_ms=1.6, latency_p95_ms=3.1)
    budgets = Budgets(latency_ms=1.7, devices={"raspberry-pi-5": bounds})
    further = {"raspberry-pi-5": (board_ms, 2.0)}
    feasible = make_feasible(latency_ms, budgets, further)
    check(feasible, (latency_ms <= 1.7) & (board_ms <= 1.55))
    name = "devices.raspberry-pi-5.latency_p95_ms"
    assert feasible.cost(name, space.architecture(5)) == 2 * board_ms[5]
    assert feasible.upper(name) == 3.1
    assert space.architecture(0) not in make_feasible(latency_ms, further=further)


def test_several_budgets_are_several_sets(make_feasible, latency_ms, check):
    feasible = make_feasible(latency_ms, Budgets(latency_ms=(1.2, 1.7)))
    tight, wide = feasible.parts
    check(tight, latency_ms <= 1.2)
    check(wide, latency_ms <= 1.7)
    check(feasible, latency_ms <= 1.7)
    assert (tight.upper("latency_ms"), wide.upper("latency_ms")) == (1.2, 1.7)
    with pytest.raises(InfeasibleError, match="latency_ms ≤ 0.5; found: latency_ms 0.5, but"):
        make_feasible(latency_ms, Budgets(latency_ms=(0.5, 1.7)))


class TestMessage:
    def test_nothing_runs_on_the_device(self, space, make_feasible):
        message = "'toy' with a finite latency; found: the device can run none"
        with pytest.raises(InfeasibleError, match=message):
            make_feasible(np.full(space.size, np.inf))

    def test_names_the_least_that_can_be_reached(self, space, make_feasible, latency_ms):
        least_ms = attainable(latency_ms.min(), Range(max=0.5))
        least_params = number(space.params(space.smallest))
        message = (
            f"with latency_ms ≤ 0.5, params ≤ 10; found: latency_ms 0.5, but the minimum of "
            f"this space is {least_ms}; params 10, but the minimum of this space is "
            f"{least_params}. Set search.budgets"
        )
        with pytest.raises(InfeasibleError, match=message):
            make_feasible(latency_ms, Budgets(latency_ms=0.5, params=10.0))

    def test_the_least_is_of_those_that_the_device_can_run(
        self, space, make_feasible, latency_ms, all_of
    ):
        without = latency_ms.copy()
        without[space.index(space.smallest)] = np.inf
        message = f"the minimum of this space is {number(sorted(all_of.params)[1])}"
        with pytest.raises(InfeasibleError, match=message):
            make_feasible(without, Budgets(params=space.params(space.smallest)))

    def test_counts_what_the_device_cannot_run(self, make_feasible, latency_ms, as_small_or_large):
        partly = latency_ms.copy()
        partly[:200] = np.inf
        counted = "200 of 243" if as_small_or_large == "laid out" else r"about 2\.0e\+02 of .*drawn"
        message = rf"the minimum of this space is .*; {counted}\)? cannot run on the device"
        with pytest.raises(InfeasibleError, match=message):
            make_feasible(partly, Budgets(latency_p95_ms=0.5))

    @pytest.mark.parametrize(
        ("macs", "found"),
        [
            (Range(min=1e9), r"macs 1,000,000,000, but the maximum of this space is"),
            (Range(min=1000, max=1001), r"macs 1,001, but the minimum of this space is"),
        ],
    )
    def test_a_range_out_of_reach(self, make_feasible, latency_ms, macs, found):
        with pytest.raises(InfeasibleError, match=found):
            make_feasible(latency_ms, Budgets(macs=macs))

    def test_a_range_between_two_values_names_the_nearest(self, make_feasible, latency_ms, all_of):
        first, second = np.unique(all_of.params)[:2]
        assert second > first + 2
        low, high = number(first + 1), number(first + 2)
        message = f"params from {low} to {high}, but the nearest .* {number(first)}"
        between = Budgets(params=Range(min=float(first + 1), max=float(first + 2)))
        with pytest.raises(InfeasibleError, match=message):
            make_feasible(latency_ms, between)

    def test_budgets_that_exclude_each_other(self, space, make_feasible, latency_ms, all_of):
        """The nearest to all, and what each comes to where the others are met."""
        least, fastest = float(latency_ms.min()), int(latency_ms.argmin())
        below = float(all_of.params[fastest]) - 1
        over = np.maximum(latency_ms / least, all_of.params / below)
        nearest, within = int(over.argmin()), latency_ms[all_of.params <= below].min()
        message = (
            f"met alone, but not all together; nearest: latency_ms "
            f"{number(latency_ms[nearest])}, params {number(all_of.params[nearest])} "
            rf"\({space.architecture(nearest)}\); latency_ms binds: at best "
            f"{attainable(within, Range(max=least))} if the others are met; "
            f"params binds: at best {number(all_of.params[fastest])} if the others are met"
        )
        with pytest.raises(InfeasibleError, match=message):
            make_feasible(latency_ms, Budgets(latency_ms=least, params=below))


@pytest.mark.parametrize(
    ("value", "shown"), [(12_300_000, "12,300,000"), (1.23456, "1.235"), (float("inf"), "inf")]
)
def test_figures_for_people(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "bound", "shown"),
    [
        (1.23444, Range(max=1), "1.235"),
        (0.0088423, Range(max=1e-9), "0.008843"),
        (9.9991, Range(max=1), "10"),
        (1.23456, Range(max=1), "1.235"),
        (1.23456, Range(min=2), "1.234"),
        (1234.4, Range(max=1), "1,235"),
        (1600, Range(max=1), "1,600"),
    ],
)
def test_a_budget_of_the_figure_that_is_told_can_be_met(value, bound, shown):
    assert attainable(value, bound) == shown
