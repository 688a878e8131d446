"""A space small enough to be gone through, with made-up costs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.search.budgets import Budgets
from edgesearch.search.constraints import FeasibleSet
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
def feasible(space, latency_ms):
    return FeasibleSet(space, latency_ms, Budgets(latency_ms=1.5), P95_RATIO)


@pytest.fixture(scope="session")
def smooth(space):
    """A score that rises towards one architecture in the middle of the space."""

    def score(architecture):
        chosen = architecture
        far = sum(abs(v.index(chosen[n]) - len(v) // 2) for n, v in space.choices.items())
        return -float(far)

    return score


@pytest.fixture
def ask_all():
    """Ask a strategy until it has nothing left or has proposed `most`, and close it."""

    def ask(strategy, score, most=1000):
        asked = []
        while len(asked) < most and (proposals := strategy.ask()):
            asked += proposals
            strategy.tell({architecture: score(architecture) for architecture in proposals})
        ended = len(asked) < most
        strategy.close()
        return SimpleNamespace(asked=asked[:most], ended=ended)

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
