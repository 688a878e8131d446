"""What is particular to spaces of residual networks; the rest is in `test_conformance.py`."""

import pytest

from edgesearch.errors import SpaceError
from edgesearch.families import known_spaces, load_space, space_from_dict
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.space import covering_networks

PAPER = load_space("resnet50to101")
OURS = [name for name in known_spaces() if name.startswith("resnet")]


@pytest.mark.parametrize(
    ("name", "per_resolution", "resolutions"),
    [
        ("resnet50to101", 85_293, 5),
        ("resnet50to101_init", 91_854, 5),
        ("resnet18to34", 3**4 * 3**3 * 4, 5),
        ("resnet_small", 3**4 * 3 * 3**3 * 2, 1),
        ("resnet_tiny", 2 * 3**3 * 2**3, 1),
    ],
)
def test_number_of_architectures(name, per_resolution, resolutions):
    space = load_space(name)
    assert len(space.resolutions) == resolutions
    assert space.size == per_resolution * resolutions


def test_number_of_distinct_blocks():
    # 3 stems, 9 first and 3 further blocks in each of 4 stages, 3 heads.
    for resolution in PAPER.resolutions:
        assert len(PAPER.distinct_blocks(resolution)) == 54


@pytest.mark.parametrize("name", OURS)
def test_few_networks_hold_all_blocks(name):
    space = load_space(name)
    resolution = space.resolutions[0]
    keys = {block.key for block in space.distinct_blocks(resolution)}
    networks = covering_networks(space, resolution, keys)
    assert len(networks) <= 9
    for network in networks:
        assert len(network) <= 2 + 2 * len(space.stages)  # equal blocks in a row stand there once
        for before, after in zip(network, network[1:], strict=False):
            assert (after.in_channels, after.hw) == (before.out_channels, before.out_hw)


def test_promised_limits():
    small, tiny = load_space("resnet_small"), load_space("resnet_tiny")
    assert small.macs(small.largest) <= 510e6
    assert small.params(small.largest) <= 5.1e6
    assert tiny.macs(tiny.largest) <= 15e6


@pytest.mark.parametrize(
    ("architecture", "published"),
    [
        ("stem32_w48-96-192-384_d2-2-5-2_r224", 1.67e9),
        ("stem64_w64-128-256-512_d3-4-6-3_r224", 4.09e9),
        ("stem64_w64-128-256-512_d3-4-23-3_r224", 7.80e9),
        ("stem64_w80-160-320-640_d4-6-29-4_r224", 15.5e9),
    ],
)
def test_published_macs(architecture, published):
    # The published counts may include the classifier: 2048 × 1000 are 0.002 G.
    depths = [[2, 3, 4], [2, 4, 6], [5, 6, 23, 29], [2, 3, 4]]
    space = load_space("resnet50to101", stage_depths=depths)
    macs = space.macs(space.from_text(architecture))
    assert macs == pytest.approx(published, abs=6e6 if published < 15e9 else 5e7)


def test_order_of_the_numbering():
    names = ["resolution", "stem_width", *(f"stage{i}_width" for i in range(1, 5))]
    assert list(PAPER.choices) == [*names, *(f"stage{i}_depth" for i in range(1, 5))]


@pytest.mark.parametrize("name", OURS)
def test_hash_is_that_of_all_fields(name):
    space = load_space(name)
    values = space.to_dict()
    changes = {
        "block": {"basic": "bottleneck", "bottleneck": "basic"}[space.block],
        "stem_widths": [16, 64],
        "stage_widths": [[8]] * len(space.stage_widths),
        "stage_depths": [[2]] * len(space.stage_depths),
    }
    if space.stage1_shortcut:  # the stem has the widths of the first stage, and blocks are basic
        changes = {"stage_depths": changes["stage_depths"], "stage1_shortcut": None}
    elif space.block == "basic":
        same = values | {"stem_widths": [8], "stage_widths": changes["stage_widths"]}
        identity = space_from_dict(same | {"stage1_shortcut": "identity"})
        assert identity.space_hash != space_from_dict(same).space_hash
    if space.stem == "small":
        changes |= {"stem_stride": 3 - space.stem_stride}
        assert space_from_dict(values | {"stem": "imagenet", "stem_stride": 2}).space_hash != (
            space_from_dict(values | {"stem_stride": 2}).space_hash
        )
    hashes = {space_from_dict(values | {k: v}).space_hash for k, v in changes.items()}
    assert len(hashes | {space.space_hash}) == len(changes) + 1


class TestFaults:
    def test_all_at_once(self):
        with pytest.raises(SpaceError, match="the search space 'bad' needs valid choices") as error:
            ResNetSpace(
                name="bad",
                block="dense",
                stem="big",
                stem_widths=(),
                stage_widths=((8, 4), (8, 8), (0,)),
                stage_depths=((1.5,), (True,)),
                resolutions=(32, "64"),
                stem_stride=4,
                in_channels=2,
            )
        for fault in (
            "block 'dense' (one of basic, bottleneck)",
            "stem 'big' (one of imagenet, small)",
            "stem_stride 4 (1 or 2; 2 with the imagenet stem)",
            "in_channels 2 (1 or 3)",
            "3 entries in stage_widths and 2 in stage_depths (one of each for every stage)",
            "stem_widths [] (a list of increasing positive integers)",
            "entry 1 of stage_widths [8, 4] (a list of increasing",
            "entry 2 of stage_widths [8, 8] (a list of increasing",
            "entry 3 of stage_widths [0] (a list of increasing",
            "entry 1 of stage_depths [1.5] (a list of increasing",
            "entry 2 of stage_depths [true] (a list of increasing",
            "resolutions [32, '64'] (a list of increasing",
        ):
            assert fault in error.value.found
        assert error.value.found.count(";") == 12  # one of them within a fault

    def test_imagenet_stem_has_stride_2(self):
        with pytest.raises(SpaceError, match="stem_stride 1 "):
            load_space("resnet50to101", stem_stride=1)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"stem_widths": [32, 48]},
                r"stem_widths \[32, 48\] and stage_widths \[\[32, 48, 64\]\]",
            ),
            ({"block": "bottleneck"}, "identity with block 'bottleneck' \\(basic\\)"),
            ({"stage1_shortcut": "none"}, "stage1_shortcut 'none' \\(identity, or none for a"),
        ],
    )
    def test_an_identity_has_as_many_channels_behind_it_as_before(self, changes, words):
        with pytest.raises(SpaceError, match=words):
            load_space("resnet18to34", **changes)

    def test_no_stages(self):
        with pytest.raises(SpaceError, match="0 entries in stage_widths"):
            load_space("resnet_tiny", stage_widths=[], stage_depths=[])

    def test_other_values_where_lists_belong(self):
        with pytest.raises(SpaceError) as error:
            load_space("resnet_tiny", stem_widths={"a": 8}, stage_widths=[8, [8]], stage_depths=5)
        assert error.value.found == (
            "stem_widths {'a': 8} (a list of integers); "
            "stage_widths [8, [8]] (a list of lists, one for each stage); "
            "stage_depths 5 (a list of lists, one for each stage)"
        )

    @pytest.mark.parametrize(("value", "shown"), [(True, "true"), (1.0, "1.0"), (None, "null")])
    def test_what_equals_1_is_no_stride(self, value, shown):
        with pytest.raises(SpaceError) as error:
            load_space("resnet_tiny", stem_stride=value)
        assert f"stem_stride {shown} (1 or 2; 2 with" in error.value.found
