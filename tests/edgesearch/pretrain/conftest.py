"""A space small enough to be trained in no time, and tensors to train on."""

import pytest
import torch
import torch.nn.functional as F

from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.pretrain.method import make_method
from edgesearch.pretrain.recipes import RECIPES

PINHOLE = ResNetSpace(
    name="pinhole",
    block="basic",
    stem="small",
    stem_widths=(4, 8),
    stage_widths=((4, 8), (8, 16)),
    stage_depths=((1, 2), (1, 2)),
    resolutions=(12, 16),
    in_channels=1,
)
SMALL = {
    "projector_hidden_dim": 10,
    "projector_dim": 6,
    "projector_bn": True,
    "predictor_hidden_dim": 7,
    "queue_size": 12,
}


@pytest.fixture(scope="session")
def pinhole():
    return PINHOLE


@pytest.fixture(scope="session")
def new_method():
    """Make a method by its name, with small heads and weights that reach everything."""

    def new_method(name, **options):
        own = RECIPES[name].options
        sizes = {option: value for option, value in SMALL.items() if option in own}
        method = make_method(name, PINHOLE, **{**sizes, **options}).train()
        for parameter, weight in method.named_parameters():
            if parameter.endswith("bn2.weight"):
                torch.nn.init.ones_(weight)  # not 0 in any block
        return method

    return new_method


@pytest.fixture(scope="session")
def two_views():
    def two_views(count=4, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randn(count, 1, 16, 16, generator=generator) for _ in range(2))

    return two_views


@pytest.fixture(scope="session")
def embeddings_of():
    """Random vectors of length 1."""

    def embeddings_of(*shape, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return F.normalize(torch.randn(*shape, generator=generator), dim=1)

    return embeddings_of
