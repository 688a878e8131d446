"""How the supernet is trained: what would train nothing."""

import re

import pytest

from edgesearch.config import load_config
from edgesearch.errors import ConfigError


@pytest.mark.parametrize(("weights", "random_subnets"), [([0, 0, 0], 1), ([0, 0, 1], 0)])
def test_weights_of_losses_that_train_nothing(weights, random_subnets):
    message = (
        "1 fault(s):\n  - pretrain.loss_weights: a weight above 0 is required for a network that "
        f"each step trains; found: {weights}"
    )
    options = [f"pretrain.random_subnets={random_subnets}", f"pretrain.loss_weights={weights}"]
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config("quickstart", options)


def test_epochs_of_the_largest_alone_need_its_weight():
    options = ["pretrain.largest_only_epochs=1", "pretrain.loss_weights=[0,1,1]"]
    message = "a weight above 0 of the largest is required by largest_only_epochs"
    with pytest.raises(ConfigError, match=message):
        load_config("quickstart", options)


@pytest.mark.parametrize(("weights", "random_subnets"), [([0, 1, 0], 0), ([0, 0, 1], 1)])
def test_one_that_trains_something_is_enough(weights, random_subnets):
    options = [f"pretrain.random_subnets={random_subnets}", f"pretrain.loss_weights={weights}"]
    assert load_config("quickstart", options).pretrain.loss_weights == tuple(weights)
