"""Work that several processes share out among them."""

import pytest

from edgesearch.errors import StageError
from edgesearch.processes import distributed
from edgesearch.processes.shared_work import SharedWork, check_same_in_all, shares


@pytest.mark.parametrize(
    ("costs", "count", "expected"),
    [
        ([1] * 8, 2, ["abcd", "efgh"]),
        ([1] * 5, 3, ["ab", "c", "de"]),
        ([1, 1, 1, 3], 2, ["abc", "d"]),
        ([6, 1, 1], 2, ["a", "bc"]),
        ([1], 3, ["a", "", ""]),
        ([1, 1, 10], 3, ["a", "b", "c"]),
        ([], 2, ["", ""]),
    ],
)
def test_runs_cost_about_the_same(costs, count, expected):
    found = shares("abcdefgh"[: len(costs)], costs, count)
    assert ["".join(run) for run in found] == expected


def test_alone_results_come_one_by_one():
    done = []

    def work(items):
        for item in items:
            done.append(item)
            yield -item

    results = SharedWork(work, float)([1, 2, 3])
    assert (next(results), done) == (-1, [1])
    assert list(results) == [-2, -3]


def test_other_inputs_than_those_of_the_first(monkeypatch):
    check_same_in_all({"a": "1"})
    monkeypatch.setattr(distributed, "of_first", lambda value: {"a": "2"})
    with pytest.raises(StageError, match="a to be the same for all processes; found: another for"):
        check_same_in_all({"a": "1"})
