"""Which whole networks are measured: for the correction, and to judge predictions."""

import numpy as np
import pytest

from edgesearch.families import known_spaces, load_space
from edgesearch.latency.workloads import correction_networks, held_out_networks


@pytest.fixture(scope="module")
def space():
    return load_space("resnet_tiny", in_channels=1)


@pytest.mark.parametrize("count", [6, 8, 12])
def test_networks_of_the_correction_span_the_space(count):
    tiny = load_space("resnet_tiny")
    networks = correction_networks(tiny, count)
    assert len(networks) == len(set(networks)) == count
    assert (networks[0], networks[-1]) == (tiny.smallest, tiny.largest)
    macs = [tiny.macs(architecture) for architecture in networks]
    assert macs == sorted(macs)
    assert networks == correction_networks(tiny, count)


@pytest.mark.parametrize("count", [6, 8, 12])
@pytest.mark.parametrize("name", known_spaces())
def test_networks_of_the_correction_cover_each_dimension(name, count):
    space = load_space(name)
    networks = correction_networks(space, count)
    assert len(networks) == count
    for dimension, values in space.choices.items():
        found = {architecture[dimension] for architecture in networks}
        assert len(found) == min(len(values), count), dimension


def test_twelve_networks_cover_a_space_of_one_resolution():
    space = load_space("resnet50to101", resolutions=[128])
    chosen = correction_networks(space, 12)
    depths = {choices["stage3_depth"] for choices in chosen}
    assert len(depths) == 12, "of 13"
    for dimension, values in space.choices.items():
        if dimension != "stage3_depth":
            assert {choices[dimension] for choices in chosen} == set(values)


@pytest.mark.parametrize("name", known_spaces())
def test_networks_of_the_correction_determine_its_fit_everywhere(name):
    # The variance of a predicted relative error, in units of that of one measured network, with
    # MACs standing for latencies: below one for most architectures, and bounded for all. All four
    # terms are in use; with fewer it is smaller.
    space = load_space(name)
    networks = space.to_digits(correction_networks(space, 12))
    drawn = space.draw(20_000, np.random.default_rng(0))
    digits = np.concatenate([networks, space.to_digits([space.smallest, space.largest]), drawn])
    macs, counts, params = (
        space.sums(cost)(digits) for cost in (lambda b: b.macs, lambda b: 1.0, lambda b: b.params)
    )
    columns = [np.ones(len(digits)), macs / macs.mean(), counts, params / params.mean()]
    rows = np.stack(columns, axis=1) / macs[:, None]
    of_networks = rows[: len(networks)]
    inverse = np.linalg.inv(of_networks.T @ of_networks)
    variances = np.einsum("ij,jk,ik->i", rows, inverse, rows)
    assert variances.mean() < 0.5
    assert variances.max() < 7


def test_networks_without_failed_blocks_are_chosen():
    space = load_space("resnet50to101")
    failed = {
        space.parts[0].blocks(size, width)[0].key
        for width in space.stem_widths[1:]
        for size in (224, 256)
    }
    networks = correction_networks(space, 12, failed)
    assert len(networks) == len(set(networks)) == 12
    assert all(failed.isdisjoint(b.key for b in space.blocks(a)) for a in networks)
    everything = {
        space.parts[0].blocks(r, w)[0].key for w in space.stem_widths for r in space.resolutions
    }
    assert correction_networks(space, 12, everything) == []


def test_a_space_with_few_architectures_has_fewer_networks():
    two = load_space("resnet_tiny", stem_widths=[16])
    assert len(correction_networks(two, 6)) <= two.size


class TestHeldOutNetworks:
    def test_are_none_that_were_fitted_to(self, space):
        fitted = correction_networks(space, 6)
        drawn = held_out_networks(space, space.size - len(set(fitted)), 0, fitted)
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) | set(fitted) == set(space)
        assert not set(drawn) & set(fitted)

    def test_depend_on_the_seed_alone(self, space):
        assert held_out_networks(space, 8, 0, []) == held_out_networks(space, 8, 0, [])
        assert held_out_networks(space, 8, 0, []) != held_out_networks(space, 8, 1, [])

    def test_are_all_others_where_more_are_wanted(self, space):
        others = held_out_networks(space, 500, 0, [space.largest])
        assert len(others) == space.size - 1
        assert space.largest not in others
        assert held_out_networks(space, 500, 0, list(space)) == []
