"""The family `resnet`: its numbering, its costs, and what it refuses."""

import random

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgesearch.errors import SpaceError
from edgesearch.families import known_spaces, load_space, space_from_dict
from edgesearch.families.resnet.network import ResNet
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.space import Architecture

LITTLE = ResNetSpace(
    name="little",
    block="bottleneck",
    stem="imagenet",
    stem_widths=(4, 8),
    stage_widths=((4,), (4, 8, 12)),
    stage_depths=((1, 3), (1, 2)),
    resolutions=(33, 64),
)


@pytest.fixture(params=known_spaces())
def space(request):
    return load_space(request.param)


def some_of(space, count=3):
    rng = random.Random(1)
    return [space.largest, space.smallest, *(space.sample(rng) for _ in range(count))]


class TestSizes:
    @pytest.mark.parametrize(
        ("name", "per_resolution", "resolutions"),
        [
            ("resnet50to101", 85_293, 5),
            ("resnet_small", 3**4 * 3 * 3**3 * 2, 1),
            ("resnet_tiny", 2 * 3**3 * 2**3, 1),
        ],
    )
    def test_number_of_architectures(self, name, per_resolution, resolutions):
        space = load_space(name)
        assert len(space.resolutions) == resolutions
        assert space.size == per_resolution * resolutions

    def test_number_of_distinct_blocks(self):
        space = load_space("resnet50to101")
        # 3 stems, 9 first and 3 further blocks in each of 4 stages, 3 heads.
        for resolution in space.resolutions:
            assert len(space.distinct_blocks(resolution)) == 54

    def test_distinct_blocks_are_those_of_the_architectures(self):
        for resolution in LITTLE.resolutions:
            needed = {b for a in LITTLE if a.resolution == resolution for b in LITTLE.blocks(a)}
            found = LITTLE.distinct_blocks(resolution)
            assert len(found) == len({block.key for block in found})
            assert set(found) == needed

    def test_promised_limits(self):
        small, tiny = load_space("resnet_small"), load_space("resnet_tiny")
        assert small.macs(small.largest) <= 510e6
        assert small.params(small.largest) <= 5.1e6
        assert tiny.macs(tiny.largest) <= 15e6


class TestCosts:
    def test_equal_what_torch_counts(self, space):
        for architecture in some_of(space):
            with torch.device("meta"):
                network = ResNet(space.blocks(architecture))
                side = architecture.resolution
                images = torch.empty(1, space.in_channels, side, side)
            with FlopCounterMode(display=False) as counter:
                features = network(images)
            assert counter.get_total_flops() == 2 * space.macs(architecture)
            assert sum(p.numel() for p in network.parameters()) == space.params(architecture)
            assert features.shape == (1, space.feature_dim(architecture))

    @pytest.mark.parametrize(
        ("architecture", "published"),
        [
            (Architecture(32, (48, 96, 192, 384), (2, 2, 5, 2), 224), 1.67e9),
            (Architecture(64, (64, 128, 256, 512), (3, 4, 6, 3), 224), 4.09e9),
            (Architecture(64, (64, 128, 256, 512), (3, 4, 23, 3), 224), 7.80e9),
            (Architecture(64, (80, 160, 320, 640), (4, 6, 29, 4), 224), 15.5e9),
        ],
    )
    def test_published_macs(self, architecture, published):
        # The published counts may include the classifier: 2048 × 1000 are 0.002 G.
        macs = load_space("resnet50to101").macs(architecture)
        assert macs == pytest.approx(published, abs=6e6 if published < 15e9 else 5e7)

    @pytest.mark.parametrize("cost", ["macs", "params"])
    def test_sum_over_blocks_equals_the_sum_for_each_architecture(self, cost):
        total = LITTLE.sum_over_blocks(lambda block: getattr(block, cost))
        assert total.shape == (LITTLE.size,)
        assert total.tolist() == [getattr(LITTLE, cost)(a) for a in LITTLE]

    def test_sum_over_blocks_tells_blocks_apart(self, space):
        """Random costs, so that no confusion of two blocks can cancel out."""
        rng = np.random.default_rng(0)
        costs = {b.key: rng.random() for r in space.resolutions for b in space.distinct_blocks(r)}
        total = space.sum_over_blocks(lambda block: costs[block.key])
        for architecture in some_of(space, 50):
            expected = sum(costs[block.key] for block in space.blocks(architecture))
            assert total[space.index(architecture)] == pytest.approx(expected)

    def test_sum_over_blocks_asks_once_for_each_block(self, space):
        asked = []

        def cost(block):
            asked.append(block)
            return 1.0

        space.sum_over_blocks(cost)
        assert asked == [b for r in space.resolutions for b in space.distinct_blocks(r)]

    def test_an_own_stage_depth_of_one_has_no_further_blocks(self):
        flat = space_from_dict(LITTLE.to_dict() | {"stage_depths": [[1], [1]]})
        kinds = {(block.kind, block.projection) for block in flat.distinct_blocks(64)}
        assert kinds == {("stem_imagenet", False), ("bottleneck", True), ("head", False)}


class TestNumbering:
    def test_goes_round(self):
        assert [LITTLE.index(a) for a in LITTLE] == list(range(LITTLE.size))

    def test_goes_round_in_shipped_spaces(self, space):
        for number in (0, 1, space.size // 2, space.size - 1):
            assert space.index(space.architecture(number)) == number
        assert space.architecture(0) == space.smallest
        assert space.architecture(space.size - 1) == space.largest

    def test_order(self):
        numbers = [0, 1, 2, LITTLE.size // 2]
        first, depth2, depth1, resolution = map(LITTLE.architecture, numbers)
        assert (first.stage_depths, first.resolution) == ((1, 1), 33)
        assert depth2.stage_depths == (1, 2)
        assert depth1.stage_depths == (3, 1)
        assert resolution.resolution == 64

    @pytest.mark.parametrize("number", [-1, LITTLE.size])
    def test_outside(self, number):
        with pytest.raises(IndexError, match=f"architecture {number} of {LITTLE.size}"):
            LITTLE.architecture(number)

    @pytest.mark.parametrize(
        ("foreign", "name"),
        [
            (Architecture(5, (4, 4), (1, 1), 33), "stem_width"),
            (Architecture(4, (4, 5), (1, 1), 33), "stage2_width"),
            (Architecture(4, (4, 4), (2, 1), 33), "stage1_depth"),
            (Architecture(4, (4, 4), (1, 1), 32), "resolution"),
        ],
    )
    def test_foreign_choice(self, foreign, name):
        assert foreign not in LITTLE
        with pytest.raises(SpaceError, match=rf"the space 'little' allows {name} \["):
            LITTLE.index(foreign)

    @pytest.mark.parametrize(("widths", "depths"), [((4,), (1, 1)), ((4, 4, 4), (1, 1, 1))])
    def test_foreign_number_of_stages(self, widths, depths):
        foreign = Architecture(4, widths, depths, 33)
        assert foreign not in LITTLE
        with pytest.raises(
            SpaceError, match="'little' has widths and depths of 2 stages; found: s"
        ):
            LITTLE.index(foreign)

    def test_own_architecture(self):
        assert all(architecture in LITTLE for architecture in LITTLE)


class TestSampling:
    def test_reaches_everything(self):
        rng = random.Random(0)
        assert {LITTLE.sample(rng) for _ in range(1000)} == set(LITTLE)

    def test_is_uniform(self):
        rng = random.Random(0)
        drawn = [LITTLE.index(LITTLE.sample(rng)) for _ in range(100 * LITTLE.size)]
        counts = np.bincount(drawn, minlength=LITTLE.size)
        assert 60 <= counts.min() <= counts.max() <= 140

    def test_follows_the_seed(self, space):
        once, again, other = (
            [space.sample(rng) for _ in range(8)] for rng in map(random.Random, (3, 3, 4))
        )
        assert once == again
        assert once != other


class TestMutation:
    def test_probability_0_changes_nothing(self, space):
        for architecture in some_of(space):
            assert space.mutate(architecture, random.Random(0), 0.0) == architecture

    def test_probability_1_draws_every_dimension_anew(self):
        rng = random.Random(0)
        children = [LITTLE.mutate(LITTLE.largest, rng, 1.0) for _ in range(1000)]
        assert set(children) == set(LITTLE)

    def test_probability_is_that_of_each_dimension(self):
        rng = random.Random(0)
        mutants = [LITTLE.mutate(LITTLE.largest, rng, 0.3) for _ in range(4000)]
        changed = np.mean([mutant.stem_width != LITTLE.largest.stem_width for mutant in mutants])
        assert changed == pytest.approx(0.3 / 2, abs=0.03)  # every other draw is the same value

    def test_stays_in_the_space(self, space):
        rng = random.Random(0)
        architecture = space.largest
        for _ in range(100):
            architecture = space.mutate(architecture, rng, 0.5)
            assert architecture in space

    def test_follows_the_seed(self, space):
        once, again = (space.mutate(space.largest, random.Random(5), 0.5) for _ in range(2))
        assert once == again


class TestDescription:
    def test_comes_back(self, space):
        assert space_from_dict(space.to_dict()) == space

    def test_hash_ignores_the_name_only(self, space):
        values = space.to_dict()
        assert space_from_dict(values | {"name": "other"}).space_hash == space.space_hash
        assert len(space.space_hash) == 16
        changes = {
            "block": {"basic": "bottleneck", "bottleneck": "basic"}[space.block],
            "in_channels": 1,
            "stem_widths": [16, 64],
            "stage_widths": [[8]] * len(space.stage_widths),
            "stage_depths": [[2]] * len(space.stage_depths),
            "resolutions": [96],
        }
        if space.stem == "small":
            changes |= {"stem_stride": 3 - space.stem_stride}
            assert space_from_dict(values | {"stem": "imagenet", "stem_stride": 2}).space_hash != (
                space_from_dict(values | {"stem_stride": 2}).space_hash
            )
        hashes = {space_from_dict(values | {k: v}).space_hash for k, v in changes.items()}
        assert len(hashes | {space.space_hash}) == len(changes) + 1

    def test_is_hashable(self):
        assert len({LITTLE, space_from_dict(LITTLE.to_dict())}) == 1


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
            "stem_width [] (a list of rising whole numbers from 1 on)",
            "stage1_width [8, 4] (a list of rising",
            "stage2_width [8, 8] (a list of rising",
            "stage3_width [0] (a list of rising",
            "stage1_depth [1.5] (a list of rising",
            "stage2_depth [True] (a list of rising",
            "resolution [32, '64'] (a list of rising",
        ):
            assert fault in error.value.found
        assert error.value.found.count(";") == 12  # one of them within a fault

    def test_imagenet_stem_has_stride_2(self):
        with pytest.raises(SpaceError, match="stem_stride 1 "):
            load_space("resnet50to101", stem_stride=1)

    def test_no_stages(self):
        with pytest.raises(SpaceError, match="0 entries in stage_widths"):
            load_space("resnet_tiny", stage_widths=[], stage_depths=[])

    def test_a_number_where_a_list_belongs(self):
        with pytest.raises(SpaceError, match=r"stem_width 8 \(a list.*stage1_width 8 \(") as error:
            load_space("resnet_tiny", stem_widths=8, stage_widths=[8, [8], [8]])
        assert "stage2_width" not in str(error.value)

    def test_a_number_where_lists_belong(self):
        with pytest.raises(SpaceError, match="are lists of whole numbers; found: .*int"):
            load_space("resnet_tiny", stage_widths=8)

    def test_unknown_and_missing_fields(self):
        values = load_space("resnet_tiny").to_dict() | {"widths": [8]}
        del values["stem_widths"], values["block"]
        with pytest.raises(SpaceError, match="unknown widths; missing block, stem_widths"):
            space_from_dict(values)
