"""What is particular to spaces of mobile networks; the rest is in `test_conformance.py`."""

import itertools
import re

import pytest

from edgesearch.errors import SpaceError
from edgesearch.families import load_space, space_from_dict
from edgesearch.families.mobile.members import MEMBERS
from edgesearch.space import covering_networks

LITTLE = {
    "name": "little",
    "family": "mobile",
    "activation": "relu",
    "stem_widths": [8],
    "stage_strides": [1, 2],
    "stage_widths": [[8], [16]],
    "stage_depths": [[1, 2], [1, 2]],
    "stage_kernels": [[3], [3, 5]],
    "stage_expansions": [[1, 2], [2, 4]],
    "head_widths": [32],
    "resolutions": [32, 64],
}


OURS = ("mobile_lite0", "mobile_small", "mobile_v4")


def little(**changes):
    return space_from_dict({**LITTLE, **changes})


@pytest.mark.parametrize(
    ("name", "per_resolution", "blocks"),
    [
        ("mobile_lite0", 2**3 * 3**6 * 2**2 * 3**2 * 4, 55),
        ("mobile_small", 2**3 * 2**4 * 2**5 * 2**3 * 3, 73),
        ("mobile_v4", 2**4 * 2**8 * 3**4 * 3 * 4**3 * 2, 223),
    ],
)
def test_spaces_are_large_and_their_tables_small(name, per_resolution, blocks):
    space = load_space(name)
    assert space.size == per_resolution * len(space.resolutions)
    for resolution in space.resolutions:
        assert len(space.distinct_blocks(resolution)) == blocks
    assert not list(space.notices())


def test_lite0_is_the_largest_of_its_space():
    ours, theirs = load_space("mobile_lite0"), MEMBERS["efficientnet_lite0"]
    assert ours.resolutions == (96, 128, 160, 192, 224)
    assert ours.blocks(ours.largest) == theirs.blocks(theirs.largest)
    assert ours.norm_eps == theirs.norm_eps
    assert all(ours.choices[f"stage{i}_depth"][0] == 1 for i in range(1, 8))


def test_promised_limits():
    small, v4 = load_space("mobile_small"), load_space("mobile_v4")
    assert small.macs(small.smallest) >= 10e6
    assert small.macs(small.largest) <= 80e6
    assert v4.size > 4 * 10**8
    widths = itertools.chain(*(v for name, v in v4.choices.items() if name.endswith("width")))
    assert all(width % 16 == 0 for width in widths)


@pytest.mark.parametrize("name", OURS)
def test_networks_that_hold_all_blocks_are_as_many_as_first_blocks_of_a_stage(name):
    space = load_space(name)
    resolution = space.resolutions[0]
    keys = {block.key for block in space.distinct_blocks(resolution)}
    networks = covering_networks(space, resolution, keys)
    assert len(networks) <= {"mobile_lite0": 6, "mobile_small": 16, "mobile_v4": 48}[name]
    for network in networks:
        for before, after in itertools.pairwise(network):
            assert (after.in_channels, after.hw) == (before.out_channels, before.out_hw)


def test_text_form():
    assert str(little().largest) == "stem8_w8-16_d2-2_k3-5_e2-4_head32_r64"
    with_starts = little(stage_start_kernels=[[0, 3], [0]])
    assert str(with_starts.smallest) == "stem8_w8-16_d1-1_s0-0_k3-3_e1-2_head32_r32"


def test_the_hash_is_that_of_all_fields():
    changes = {
        "activation": "relu6",
        "stem": "fused",
        "stem_widths": [16],
        "stage_strides": [2, 1],
        "stage_widths": [[8], [24]],
        "stage_depths": [[1], [1]],
        "stage_kernels": [[3], [3]],
        "stage_expansions": [[2], [2]],
        "stage_start_kernels": [[0], [0]],
        "head_widths": [16],
        "padding": "tensorflow",
        "norm_eps": 1e-3,
        "resolutions": [64],
    }
    hashes = {little(**{"resolutions": [64], name: value}) for name, value in changes.items()}
    assert len({space.space_hash for space in hashes}) == len(changes)


def test_blocks_of_tensorflow_padding_differ_on_even_maps_only():
    symmetric, tensorflow = (
        little(padding=p, resolutions=[32, 49]) for p in ("symmetric", "tensorflow")
    )
    for resolution, differing in ((32, {"stem_conv", "inverted"}), (49, set())):
        ours, theirs = (
            {block.key for block in space.distinct_blocks(resolution)}
            for space in (symmetric, tensorflow)
        )
        assert {key.split("/")[0] for key in theirs - ours} == differing
        assert all(key.endswith("/asym") for key in theirs - ours)


def test_one_architecture_only():
    for space in MEMBERS.values():
        assert space.size == 1
        assert space.smallest == space.largest == space.architecture(0)
        assert len(space.neighbours([0] * len(space.choices))) == 0


FAULTS = {
    "no depthwise for the stride": (
        {"stage_kernels": [[3], [0, 3]]},
        "stage2 with a stride and no depthwise convolution that could have it (0 in kernels [0, 3] "
        "and in start_kernels [0]: one of these lists must begin with 3 or more)",
    ),
    "neither depthwise nor expansion": (
        {"stage_kernels": [[0], [3]]},
        "stage1 with neither depthwise convolution nor expansion (0 in kernels [0] and in "
        "start_kernels [0], 1 in expansions: one of the first two must begin with 3 or more, or "
        "the expansions with 2 or more)",
    ),
    "kernel larger than the map": (
        {"resolutions": [8, 64]},
        "stage2 with a kernel of size 5 on a map of 2×2 pixels at 8 px (at most 3, as ",
    ),
    "even kernel": (
        {"stage_kernels": [[4], [3]]},
        "entry 1 of stage_kernels [4] (each one of [0, 3, 5, 7])",
    ),
    "large start kernel": (
        {"stage_start_kernels": [[7], [0]]},
        "entry 1 of stage_start_kernels [7] (each one of [0, 3, 5])",
    ),
    "negative kernel": (
        {"stage_kernels": [[-3, 3], [3]]},
        "entry 1 of stage_kernels [-3, 3] (a list of increasing integers from 0)",
    ),
    "no expansion of 0": (
        {"stage_expansions": [[0], [3]]},
        "entry 1 of stage_expansions [0] (a list of increasing positive integers)",
    ),
    "activation": (
        {"activation": "swish"},
        "activation 'swish' (one of relu, relu6, hard_swish)",
    ),
    "stem": ({"stem": "imagenet"}, "stem 'imagenet' (one of conv, fused)"),
    "padding": ({"padding": ["same"]}, "padding ['same'] (one of symmetric, tensorflow)"),
    "eps": ({"norm_eps": 0}, "norm_eps 0 (a number from 1.0e-12 to 1, such as 1.0e-3)"),
    "huge eps": ({"norm_eps": 1e300}, "norm_eps 1e+300 (a number from"),
    "lost eps": ({"norm_eps": 1e-300}, "norm_eps 1e-300 (a number from"),
    "eps as text": ({"norm_eps": "1e-3"}, "norm_eps '1e-3' (a number from"),
    "strides": ({"stage_strides": [1, 3]}, "stage_strides [1, 3] (each 1 or 2)"),
    "numbers of entries": (
        {"stage_depths": [[1]]},
        "entries of stages: 2 in stage_strides, 2 in stage_widths, 1 in stage_depths, 2 in "
        "stage_kernels, 2 in stage_expansions (one in each for every stage)",
    ),
    "no stage": (
        {name: [] for name in LITTLE if name.startswith("stage_")},
        "entries of stages: 0 in stage_strides",
    ),
    "true for 1": ({"stage_strides": [True, 2]}, "stage_strides [true, 2] (each 1 or 2)"),
    "1.0 for 1": ({"stage_strides": [1.0, 2]}, "stage_strides [1.0, 2] (each 1 or 2)"),
    "a number for a list": (
        {"stage_widths": [8, [16]]},
        "stage_widths [8, [16]] (a list of lists, one for each stage)",
    ),
    "head": ({"head_widths": [32, 16]}, "head_widths [32, 16] (a list of increasing positive"),
    "nothing in a list": (
        {"stage_kernels": [[3], [None]]},
        "entry 2 of stage_kernels [null] (a list of increasing integers from 0)",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name):
    changes, words = FAULTS[name]
    with pytest.raises(SpaceError, match="'little' needs valid choices") as caught:
        little(**changes)
    assert words in caught.value.found


@pytest.mark.parametrize(("value", "shown"), [(3, "3"), (None, "null"), ("12", "'12'")])
@pytest.mark.parametrize(
    ("field", "form"),
    [
        ("stage_strides", "a list of integers"),
        ("head_widths", "a list of integers"),
        ("stage_kernels", "a list of lists, one for each stage"),
        ("stage_start_kernels", "a list of lists, one for each stage"),
    ],
)
def test_other_values_where_lists_belong(field, form, value, shown):
    with pytest.raises(SpaceError) as caught:
        little(**{field: value, "in_channels": True})
    assert caught.value.found == f"{field} {shown} ({form}); in_channels true (1 or 3)"


def test_the_remedies_work():
    little(stage_kernels=[[3], [0, 3]], stage_start_kernels=[[0], [3]])
    little(stage_kernels=[[0], [3]], stage_expansions=[[2], [2]])
    little(stage_kernels=[[3], [3]], resolutions=[8])


def test_a_kernel_may_reach_over_the_map_as_far_as_it_sees_pixels():
    """EfficientNet-Lite0 at 96 px has kernels of 5 on maps of 3×3 pixels."""
    small = little(resolutions=[12, 64])
    (largest,) = {b.hw for b in small.blocks(small.smallest) if b.is_last}
    assert largest == 3


def test_resolutions_that_the_strides_do_not_divide_are_told():
    assert not list(little().notices())
    (told,) = little(resolutions=[32, 33, 50]).notices()
    assert re.match(
        r"resolution 33, 50 of little: the strides multiply to 4, .* multiple of 4", told
    )
