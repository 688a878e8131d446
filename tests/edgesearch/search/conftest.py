"""A space small enough to be gone through, with made-up costs."""

import numpy as np
import pytest
import torch

from devices import DeviceSpec
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.search.costs import Costs, DeviceLatencies
from edgesearch.search.feasible import find_feasible
from edgesearch.search.settings import Budgets
from edgesearch.space import search_space
from edgesearch.supernet.projector import Projector
from edgesearch.supernet.supernet import Supernet

P95_RATIO = 1.25


@pytest.fixture(scope="session")
def space():
    widths, depths = ((4, 8, 12), (8, 16, 24)), ((1, 2, 3), (1, 2, 3))
    return ResNetSpace("toy", "basic", "small", (4, 8, 12), widths, depths, (16,))


@pytest.fixture(scope="session")
def latency_ms(space):
    return np.random.default_rng(0).uniform(1, 2, space.size)


@pytest.fixture(scope="session")
def make_feasible(space):
    """A feasible set from an array of latencies, and of further devices from theirs."""

    def made_up(of, latency_ms, ratio=P95_RATIO):
        shape = tuple(map(len, of.choices.values()))

        def median_ms(digits):
            chosen = ... if digits is None else np.ravel_multi_index(tuple(digits.T), shape)
            return latency_ms[chosen]

        return DeviceLatencies(median_ms, ratio)

    def make(latency_ms, budgets=Budgets(), further=None, of=space, **device):  # noqa: B008
        others = {name: made_up(of, *other) for name, other in (further or {}).items()}
        costs = Costs(of, DeviceSpec("local-cpu", **device), made_up(of, latency_ms), others)
        return find_feasible(costs, budgets)

    return make


@pytest.fixture(scope="session")
def feasible(make_feasible, latency_ms):
    return make_feasible(latency_ms, Budgets(latency_ms=1.5))


@pytest.fixture(params=["laid out", "drawn"])
def as_small_or_large(request, monkeypatch):
    """Both ways of finding what is feasible, on the same small space."""
    if request.param == "drawn":
        monkeypatch.setattr(search_space, "LIMIT", 0)
    return request.param


@pytest.fixture(scope="session")
def smooth(space):
    """A score that rises towards one architecture in the middle of the space."""

    def score(architecture):
        far = sum(abs(v.index(architecture[n]) - len(v) // 2) for n, v in space.choices.items())
        return -float(far)

    return score


@pytest.fixture
def ask_all():
    """Ask a strategy until it has nothing left or has proposed `most`."""

    def ask(strategy, score, most=1000):
        asked = []
        while len(asked) < most and (proposals := strategy.ask()):
            asked += proposals
            strategy.tell({architecture: score(architecture) for architecture in proposals})
        return asked[:most]

    return ask


@pytest.fixture(scope="session")
def random_state():
    """Makes the states of a backbone and a projector whose weights leave no block idle."""

    def make(space, seed):
        torch.manual_seed(seed)
        backbone = Supernet(space).backbone
        for name, parameter in backbone.named_parameters():
            if "bn" in name or "downsample.1" in name:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
        projector = Projector(backbone.feature_dim, 16, 8, bn=True)
        return backbone.state_dict(), projector.state_dict()

    return make
