"""Every command in spaces of one to a few architectures, and in spaces of 10^10 and 10^20."""

import pytest
import torch

from edgesearch.errors import SearchError
from edgesearch.search.agreement import Agreement

# Large enough to take longer than the fixed cost of a run, also on a restless machine.
TINY = {
    size: {"resolutions": [48], "widths": widths, "depths": [[1], [1, 2]][: len(widths)]}
    for size, widths in {
        1: [[16]],
        2: [[16, 32]],
        3: [[16, 24, 32]],
        5: [[16, 20, 24, 28, 32]],
        8: [[16, 32], [32, 64]],
    }.items()
}
LARGE = {
    10: {"widths": [[2, 4]] * 10, "depths": [[1, 2, 3, 4, 5]] * 10},
    20: {"widths": [[4, 6, 8, 10, 12]] * 20, "depths": [[1, 2]] * 20},
}
"""By the power of ten of their size."""
SLOW = (2, 3, 8)


@pytest.fixture
def run_of(empty, tiny_family):
    """A run in a space of the tiny family, and what it reports."""

    def run_of(fields, **search):
        told = []
        own = {"name": "few", "family": "tiny", "resolutions": [16], "in_channels": 1, **fields}
        run = empty.api(
            pretrain={"epochs": 1, "lr": 1e-6},  # deep chains without residuals
            profile={"rounds": 2, "least_ms": 0},
            validation={"networks": 3},
            search={"budgets": {"latency_ms": 1000}, "population": None, **search},
            export={"tensorrt": None},
            rank={"subnets": 4, "draws": 100},
            evaluation={"train_images": 100, "test_images": 50},
        )
        values = {**run.config.model_dump(mode="json"), "space": own}
        run = type(run)(type(run.config).model_validate(values))
        run.report = lambda event: told.append(event.message)
        return run, told

    return run_of


@pytest.mark.parametrize(
    "size", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in TINY]
)
def test_a_tiny_space_goes_through_every_command(run_of, size):
    run, told = run_of(TINY[size])
    assert run.space.size == size
    done = run.run()
    assert done.profile.correction.networks == min(size, 6)
    assert done.search.feasible == size
    assert len({w.architecture for w in done.search.winners.winners}) == 1
    assert done.profile.skipped is False and run.profile().skipped

    checked = run.validate()
    assert 1 <= checked.n <= 3
    others = size - 6  # profile.networks
    assert checked.held_out == (others > 0)
    if not checked.held_out:
        assert any("none can be held out" in message for message in told)
        assert "of these, measured again" in run.profile().description
    assert {row.name for row in run.evaluate().rows} >= {"winner w0", "smallest"}
    ranked = run.rank()
    assert ranked.subnets == min(size, 4)
    assert run.run().export.skipped


@pytest.mark.parametrize("strategy", ["evolution", "tpe", "random", "exhaustive"])
def test_every_strategy_in_a_space_of_two(run_of, strategy):
    run, _ = run_of(TINY[2], strategy=strategy, evaluations=1 + (strategy == "exhaustive"))
    run.profile()
    run.pretrain()
    assert len(run.search().winners.winners) == 1


@pytest.mark.parametrize("power", [10, pytest.param(20, marks=pytest.mark.slow)])
def test_nothing_lays_a_large_space_out(run_of, power):
    run, _ = run_of(LARGE[power], evaluations=12)
    assert run.space.size == 10**power
    assert run.profile().estimated_from
    run.pretrain()
    found = run.search()
    assert found.estimated_from and found.feasible == run.space.size
    assert run.validate().n == 3
    assert run.rank().subnets == 4
    assert len(run.evaluate().rows) == 5


def test_a_supernet_whose_outputs_are_not_finite_is_named(run_of, monkeypatch):
    run, _ = run_of(TINY[3])
    run.profile()
    run.pretrain()
    nothing = torch.full((64,), float("nan"))
    monkeypatch.setattr(Agreement, "all_scores", lambda self, asked, _: [nothing] * len(asked))
    with pytest.raises(SearchError, match="an agreement of nan for tiny48"):
        run.search()
