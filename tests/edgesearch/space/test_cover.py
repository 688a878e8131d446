"""A few networks that hold all wanted blocks."""

import pytest

from edgesearch.families import known_spaces, load_space
from edgesearch.space import covering_networks


def assert_connected(network):
    for before, after in zip(network, network[1:], strict=False):
        assert after.in_channels == before.out_channels
        assert after.hw == before.out_hw


@pytest.mark.parametrize("name", known_spaces())
def test_every_block_is_in_a_network_that_can_be_built(name):
    space = load_space(name)
    resolution = space.resolutions[0]
    keys = {block.key for block in space.distinct_blocks(resolution)}
    networks = covering_networks(space, resolution, keys)
    assert {block.key for network in networks for block in network} == keys
    assert len(networks) <= 16
    for network in networks:
        assert_connected(network)
        assert network[0].kind.startswith("stem")
        assert network[-1].kind == "head"


def test_one_block_needs_one_network():
    space = load_space("resnet50to101")
    for block in space.distinct_blocks(224):
        (network,) = covering_networks(space, 224, {block.key})
        assert block in network
        assert_connected(network)


def test_foreign_keys_are_left_aside():
    space = load_space("resnet_tiny")
    assert covering_networks(space, 32, {"head/in7/hw7"}) == []
