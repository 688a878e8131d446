"""Which architectures meet budgets, and what is said when none does."""

import numpy as np
import pytest

from edgesearch.errors import InfeasibleError
from edgesearch.search.budgets import Budgets, LatencyBudgets, Range
from edgesearch.search.constraints import DeviceLatencies, FeasibleSet
from edgesearch.search.infeasible import number

P95_RATIO = 1.25


@pytest.mark.parametrize(
    "budgets",
    [
        Budgets(),
        Budgets(latency_ms=1.3),
        Budgets(latency_p95_ms=1.7),
        Budgets(latency_ms=1.3, latency_p95_ms=1.7),
        Budgets(latency_ms=1.4, latency_p95_ms=1.6),
        Budgets(params=4000.0),
        Budgets(macs=300_000.0),
        Budgets(latency_ms=1.6, params=20_000.0, macs=500_000.0),
    ],
)
def test_mask_equals_brute_force(space, latency_ms, budgets):
    expected = [
        (budgets.latency_ms is None or latency_ms[index] <= budgets.latency_ms)
        and (
            budgets.latency_p95_ms is None
            or P95_RATIO * latency_ms[index] <= budgets.latency_p95_ms
        )
        and (budgets.params is None or space.params(architecture) <= budgets.params)
        and (budgets.macs is None or space.macs(architecture) <= budgets.macs)
        for index, architecture in enumerate(space)
    ]
    feasible = FeasibleSet(space, latency_ms, budgets, P95_RATIO)
    assert feasible.mask.tolist() == expected
    assert sum(expected) > 0
    assert feasible.indices.tolist() == np.flatnonzero(expected).tolist()
    assert [architecture in feasible for architecture in space] == expected


def test_a_budget_that_is_just_met_is_met(space, latency_ms):
    least = space.params(space.smallest)
    feasible = FeasibleSet(space, latency_ms, Budgets(params=least), P95_RATIO)
    assert feasible.indices.tolist() == [space.index(space.smallest)]


def test_costs_are_those_of_the_architecture(space, latency_ms, feasible):
    architecture = space.architecture(100)
    assert feasible.cost("latency_ms", architecture) == latency_ms[100]
    assert feasible.cost("latency_p95_ms", architecture) == P95_RATIO * latency_ms[100]
    assert feasible.cost("params", architecture) == space.params(architecture)
    assert feasible.cost("macs", architecture) == space.macs(architecture)


def test_what_the_device_cannot_run_is_left_out(space, latency_ms):
    partly = latency_ms.copy()
    partly[::2] = np.inf
    feasible = FeasibleSet(space, partly, Budgets(), P95_RATIO)
    assert feasible.indices.tolist() == list(range(1, space.size, 2))
    assert feasible.cannot_run == space.size - space.size // 2


def test_nothing_runs_on_the_device(space):
    message = "'toy' with a finite latency; found: the device can run none"
    with pytest.raises(InfeasibleError, match=message):
        FeasibleSet(space, np.full(space.size, np.inf), Budgets(), P95_RATIO)


def test_message_names_the_least_that_can_be_reached(space, latency_ms):
    least_ms, least_params = number(latency_ms.min()), number(space.params(space.smallest))
    message = (
        f"with latency_ms ≤ 0.5, params ≤ 10; found: latency_ms 0.5, but the least that this "
        f"space reaches is {least_ms}; params 10, but the least that this space reaches is "
        f"{least_params}. Set search.budgets"
    )
    with pytest.raises(InfeasibleError, match=message):
        FeasibleSet(space, latency_ms, Budgets(latency_ms=0.5, params=10.0), P95_RATIO)


def test_the_least_is_of_those_that_the_device_can_run(space, latency_ms):
    without_smallest = latency_ms.copy()
    without_smallest[space.index(space.smallest)] = np.inf
    least = sorted({space.params(architecture) for architecture in space})[1]
    message = f"the least that this space reaches is {number(least)}"
    with pytest.raises(InfeasibleError, match=message):
        FeasibleSet(
            space, without_smallest, Budgets(params=space.params(space.smallest)), P95_RATIO
        )


def test_a_percentile_that_nothing_meets_is_named(space, latency_ms):
    least = number(P95_RATIO * latency_ms.min())
    message = (
        f"with latency_ms ≤ 1.5, latency_p95_ms ≤ 1.1; found: latency_p95_ms 1.1, but the least "
        f"that this space reaches is {least}. Set search.budgets"
    )
    with pytest.raises(InfeasibleError, match=message):
        FeasibleSet(space, latency_ms, Budgets(latency_ms=1.5, latency_p95_ms=1.1), P95_RATIO)


def test_message_counts_what_the_device_cannot_run(space, latency_ms):
    partly = latency_ms.copy()
    partly[:200] = np.inf
    message = r"the least that this space reaches is .*; 200 of 243 cannot run on the device\."
    with pytest.raises(InfeasibleError, match=message):
        FeasibleSet(space, partly, Budgets(latency_p95_ms=0.5), P95_RATIO)


def test_budgets_that_exclude_each_other_name_the_nearest(space):
    rising_as_params_fall = -space.sum_over_blocks(lambda block: block.params)
    latency_ms = 1 + (rising_as_params_fall - rising_as_params_fall.min()) / 1e4
    params = np.array([space.params(architecture) for architecture in space])
    over = np.maximum(latency_ms / 1.0, params / params.min())
    nearest = space.architecture(int(over.argmin()))
    message = (
        f"met alone, but not together; nearest to all: latency_ms "
        f"{number(latency_ms[over.argmin()])}, params {number(space.params(nearest))} "
        rf"\({nearest}\)"
    )
    budgets = Budgets(latency_ms=1.0, params=float(params.min()))
    with pytest.raises(InfeasibleError, match=message):
        FeasibleSet(space, latency_ms, budgets, P95_RATIO)


@pytest.mark.parametrize(
    ("value", "shown"), [(12_300_000, "12,300,000"), (1.23456, "1.235"), (float("inf"), "inf")]
)
def test_figures_for_people(value, shown):
    assert number(value) == shown


def test_ranges_bound_from_below_as_well(space, latency_ms):
    macs = np.array([space.macs(architecture) for architecture in space])
    low, high = np.quantile(macs, [0.3, 0.6])
    feasible = FeasibleSet(space, latency_ms, Budgets(macs=Range(low, high)), P95_RATIO)
    assert feasible.mask.tolist() == [low <= value <= high for value in macs]
    at_least = FeasibleSet(space, latency_ms, Budgets(macs=Range(min=low)), P95_RATIO)
    assert at_least.mask.tolist() == [low <= value for value in macs]


def test_further_devices_bind_too(space, latency_ms):
    board_ms = latency_ms[::-1].copy()
    board_ms[0] = np.inf
    board = {"board": DeviceLatencies(board_ms, 2.0)}
    budgets = Budgets(
        latency_ms=1.7, devices={"board": LatencyBudgets(latency_ms=1.6, latency_p95_ms=3.1)}
    )
    feasible = FeasibleSet(space, latency_ms, budgets, P95_RATIO, devices=board)
    expected = (latency_ms <= 1.7) & (board_ms <= 1.55)
    assert feasible.mask.tolist() == expected.tolist()
    assert feasible.cannot_run == 1
    assert feasible.cost("devices.board.latency_p95_ms", space.architecture(5)) == 2 * board_ms[5]
    assert feasible.upper("devices.board.latency_p95_ms") == 3.1
    unbounded = FeasibleSet(space, latency_ms, Budgets(), P95_RATIO, devices=board)
    assert 0 not in unbounded.indices


def test_several_budgets_are_several_sets(space, latency_ms):
    feasible = FeasibleSet(space, latency_ms, Budgets(latency_ms=(1.2, 1.7)), P95_RATIO)
    tight, wide = feasible.parts
    assert tight.indices.tolist() == np.flatnonzero(latency_ms <= 1.2).tolist()
    assert wide.indices.tolist() == feasible.indices.tolist()
    assert wide.indices.tolist() == np.flatnonzero(latency_ms <= 1.7).tolist()
    assert (tight.upper("latency_ms"), wide.upper("latency_ms")) == (1.2, 1.7)
    with pytest.raises(InfeasibleError, match="latency_ms ≤ 0.5; found: latency_ms 0.5, but"):
        FeasibleSet(space, latency_ms, Budgets(latency_ms=(0.5, 1.7)), P95_RATIO)


def test_bytes_follow_precision_and_batch(space, latency_ms):
    options = {"value_bytes": 2, "batch": 3}
    feasible = FeasibleSet(space, latency_ms, Budgets(), P95_RATIO, **options)
    architecture = space.architecture(77)
    live = max(block.live_values for block in space.blocks(architecture))
    assert feasible.cost("activation_bytes", architecture) == 2 * 3 * live
    assert feasible.cost("weight_bytes", architecture) == 2 * space.params(architecture)


@pytest.mark.parametrize(
    ("macs", "found"),
    [
        (Range(min=1e9), r"macs 1,000,000,000, but the most that this space reaches is"),
        (Range(1000, 1001), r"macs 1,001, but the least that this space reaches is"),
    ],
)
def test_a_range_out_of_reach_is_said(space, latency_ms, macs, found):
    with pytest.raises(InfeasibleError, match=found):
        FeasibleSet(space, latency_ms, Budgets(macs=macs), P95_RATIO)


def test_a_range_between_two_values_names_the_nearest(space, latency_ms):
    first, second = sorted({space.params(architecture) for architecture in space})[:2]
    between = Range(first + 1, first + 2)
    low, high = number(first + 1), number(first + 2)
    message = f"params from {low} to {high}, but the nearest .* {number(first)}"
    assert second > first + 2
    with pytest.raises(InfeasibleError, match=message):
        FeasibleSet(space, latency_ms, Budgets(params=between), P95_RATIO)


def test_which_budget_binds_is_said(space, latency_ms):
    """Of budgets that cannot be met together: what each comes to where the others are."""
    least = float(latency_ms.min())
    params = np.array([space.params(architecture) for architecture in space])
    fastest = int(latency_ms.argmin())
    below = float(params[fastest]) - 1
    with_few = number(latency_ms[params <= below].min())
    message = (
        f"latency_ms binds: with the others met it is {with_few} at best; "
        f"params binds: with the others met it is {number(params[fastest])} at best"
    )
    with pytest.raises(InfeasibleError, match=message):
        FeasibleSet(space, latency_ms, Budgets(latency_ms=least, params=below), P95_RATIO)
