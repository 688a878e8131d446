"""What every family promises: one class of tests over all of them."""

import dataclasses
import itertools
import json
import random
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgesearch.errors import SpaceError
from edgesearch.families import FAMILIES, space_from_dict
from edgesearch.space import covering_networks
from edgesearch.space.search_space import LIMIT
from edgesearch.supernet.calibrate import recalibrate
from edgesearch.supernet.dynamic_ops import centre
from edgesearch.supernet.projector import Projector
from edgesearch.supernet.subnet import Subnet
from edgesearch.supernet.supernet import Supernet
from edgesearch.supernet.weights import SupernetWeights, extract

# For each case a small space, and what makes a large one of it.
RESNET = {"family": "resnet", "resolutions": [33, 48], "stem_widths": [4, 8]}
CASES = {
    "resnet, bottleneck": (
        RESNET
        | {"block": "bottleneck", "stem": "imagenet", "stage_widths": [[4], [4, 8, 12]]}
        | {"stage_depths": [[1, 3], [1, 2]]},
        {"stage_widths": [list(range(4, 24))] * 5, "stage_depths": [[1, 2, 4]] * 5},
    ),
    "resnet, basic": (
        RESNET
        | {"block": "basic", "stem": "small", "stem_stride": 1, "in_channels": 1}
        | {"stage_widths": [[4, 8], [8], [12]], "stage_depths": [[1, 2], [2], [1, 2, 3]]},
        {"stage_widths": [list(range(4, 24))] * 8, "stage_depths": [[1, 2, 4]] * 8},
    ),
    "resnet, identity": (
        RESNET
        | {"block": "basic", "stem": "imagenet", "stage1_shortcut": "identity"}
        | {"stage_widths": [[4, 8], [8, 12]], "stage_depths": [[1, 3], [1, 2]]},
        {"stage_widths": [[4, 8], *[list(range(4, 24))] * 5], "stage_depths": [[1, 2, 4]] * 6},
    ),
    "mobile": (
        {"family": "mobile", "activation": "relu6", "stem_widths": [4, 8], "head_widths": [8]}
        | {"stage_strides": [1, 2, 1], "stage_widths": [[4], [6, 8], [8]], "resolutions": [17, 32]}
        | {"stage_depths": [[1], [1, 3], [2]], "stage_kernels": [[3], [0, 5], [0]]}
        | {"stage_expansions": [[1, 2], [3], [2]], "stage_start_kernels": [[0], [3], [0, 3]]}
        | {"padding": "tensorflow", "norm_eps": 1e-3},
        {"stage_widths": [list(range(4, 16))] * 3, "stage_depths": [[1, 2, 4]] * 3}
        | {"stage_kernels": [[3, 5]] * 3, "stage_start_kernels": [[0, 3, 5]] * 3}
        | {"stage_expansions": [[2, 4]] * 3, "resolutions": [32, 64]},
    ),
    "mobile, fused": (
        {"family": "mobile", "activation": "hard_swish", "stem": "fused", "in_channels": 1}
        | {"stem_widths": [2, 4], "head_widths": [6], "resolutions": [41, 48]}
        | {"stage_strides": [2], "stage_widths": [[8]], "stage_depths": [[1, 2]]}
        | {"stage_kernels": [[3, 5]], "stage_expansions": [[2, 4]]},
        {"stage_strides": [1] * 4, "stage_widths": [list(range(4, 16))] * 4}
        | {"stage_depths": [[1, 2, 4]] * 4, "stage_kernels": [[3, 5]] * 4}
        | {"stage_expansions": [[2, 4]] * 4},
    ),
    "tiny": (
        {"family": "tiny", "widths": [[2, 4], [6, 8]], "depths": [[1, 3], [1, 2]]}
        | {"resolutions": [9, 16]},
        {"widths": [list(range(1, 9))] * 20, "depths": [[1, 2, 3]] * 20},
    ),
}


def images_of(space, architecture, count=4):
    generator = torch.Generator().manual_seed(7)
    side = architecture.resolution
    return torch.randn(count, space.in_channels, side, side, generator=generator)


def some_of(space):
    rng = random.Random(2)
    return [space.largest, space.smallest, *(space.sample(rng) for _ in range(4))]


def randomised(network):
    """A network that is random in every entry, statistics included, so that nothing is idle."""
    torch.manual_seed(0)
    for key, tensor in network.state_dict().items():
        if tensor.dim() == 1:
            low = -0.2 if key.endswith(("bias", "mean")) else 0.5
            tensor.uniform_(low, low + 0.5)
    return network.eval()


def test_every_family_is_tested():
    assert set(FAMILIES) <= {values["family"] for values, _ in CASES.values()}


@pytest.mark.usefixtures("tiny_family")
class TestFamily:
    @pytest.fixture(params=CASES)
    def case(self, request):
        return request.param

    @pytest.fixture
    def space(self, case, tiny_family):
        return space_from_dict({"name": "little", **CASES[case][0]})

    @pytest.fixture
    def large(self, case, tiny_family):
        small, changes = CASES[case]
        return space_from_dict({"name": "large", **small, **changes})

    @pytest.fixture
    def supernet(self, space):
        return randomised(Supernet(space))

    # Elastic networks begin with public weights.

    def test_inner_channels_may_be_permuted(self, space, supernet):
        network = supernet.backbone
        for channels in network.inner_channels():
            width = network.get_submodule(channels.read_by).weight.shape[1]
            order = torch.randperm(width, generator=torch.Generator().manual_seed(width))
            images = images_of(space, space.largest)
            before = network(images)
            reader = network.get_submodule(channels.read_by).weight.data
            reader.copy_(reader[:, order])
            for name in channels.made_by:
                for tensor in network.get_submodule(name).state_dict().values():
                    if tensor.ndim:
                        tensor.copy_(tensor[order])
            torch.testing.assert_close(network(images), before, rtol=1e-4, atol=1e-4)

    def test_block_without_last_scale_passes_on_its_input(self, space, supernet):
        network = supernet.backbone
        for block, norm in network.last_norms().items():
            (step,) = [step for step in network.steps() if step.modules == (block,)]
            if block.endswith(".0"):
                continue  # the first of a stage may change channels and size
            for part in ("weight", "bias"):
                network.get_submodule(norm).get_parameter(part).data.zero_()
            width = network.get_submodule(norm).num_features
            images = torch.rand(2, width, 8, 8)
            torch.testing.assert_close(step.run(images), images)

    # The description of a space.

    def test_description_comes_back(self, space):
        again = space_from_dict(json.loads(json.dumps(space.to_dict())))
        assert again == space
        assert len({again, space}) == 1

    def test_hash_ignores_the_name_only(self, space):
        hashes = {dataclasses.replace(space, name="other").space_hash, space.space_hash}
        assert len(hashes) == 1
        for change in ({"resolutions": (64,)}, {"in_channels": 4 - space.in_channels}):
            hashes.add(dataclasses.replace(space, **change).space_hash)
        assert len(hashes) == 3

    def test_faults_of_choices(self, space):
        with pytest.raises(SpaceError, match="the search space 'little' needs valid cho") as caught:
            dataclasses.replace(space, resolutions=(32, "64"), in_channels=2)
        assert "in_channels 2 (1 or 3)" in caught.value.found
        assert (
            "resolutions [32, '64'] (a list of increasing positive integers" in caught.value.found
        )

    @pytest.mark.parametrize(("value", "shown"), [(True, "true"), (1.0, "1.0"), (None, "null")])
    def test_what_equals_1_is_no_number_of_channels(self, space, value, shown):
        with pytest.raises(SpaceError) as caught:
            dataclasses.replace(space, in_channels=value)
        assert caught.value.found == f"in_channels {shown} (1 or 3)"

    def test_no_list_of_resolutions(self, space):
        with pytest.raises(SpaceError) as caught:
            dataclasses.replace(space, resolutions={"from": 32})
        assert caught.value.found.startswith("resolutions {'from': 32} (a list")

    def test_a_long_list_is_shortened_and_what_is_wrong_is_named(self, space):
        with pytest.raises(SpaceError) as caught:
            dataclasses.replace(space, resolutions=(*range(32, 48), 40))
        assert caught.value.found == (
            "resolutions [32, 33, 34, 35, 36, 37, ...] (a list of increasing positive integers; "
            "entry 17 is 40)"
        )

    def test_as_many_blocks_as_no_network_has(self, case, space):
        name = next(name for name in space.to_dict() if "depths" in name)
        values = space.to_dict()
        values[name][-1] = [1, 1001]
        with pytest.raises(SpaceError, match=r"up to 1,00\d blocks in the stages of a network"):
            space_from_dict(values)

    def test_more_settings_than_can_be_laid_out(self, space):
        begun = time.monotonic()
        with pytest.raises(SpaceError, match="at most 1,000,000 settings") as caught:
            dataclasses.replace(space, resolutions=tuple(range(48, 2_000_000)))
        assert "1,999,952 of resolutions × " in caught.value.found
        assert caught.value.remedy.startswith("Choose fewer values in resolutions or ")
        assert time.monotonic() - begun < 5

    def test_unknown_and_missing_fields(self, space):
        values = space.to_dict() | {"wide": [8]}
        del values["resolutions"]
        with pytest.raises(SpaceError, match="unknown wide; missing resolutions"):
            space_from_dict(values)

    # Architectures.

    def test_numbering(self, space):
        everything = list(space)
        assert [space.index(a) for a in everything] == list(range(space.size))
        assert len(set(everything)) == space.size
        assert (everything[0], everything[-1]) == (space.smallest, space.largest)
        assert everything == [
            space.from_choices(dict(zip(space.choices, values, strict=True)))
            for values in itertools.product(*space.choices.values())
        ]
        for number in (-1, space.size):
            with pytest.raises(IndexError, match=f"architecture {number} of {space.size}"):
                space.architecture(number)

    def test_digits(self, space):
        digits = space.to_digits(list(space))
        shape = tuple(map(len, space.choices.values()))
        assert np.array_equal(digits, np.stack(np.unravel_index(range(space.size), shape), 1))
        assert [space.from_digits(row) for row in digits] == list(space)

    def test_text_and_json_come_back(self, space):
        for architecture in space:
            assert architecture in space
            assert space.from_text(f" {architecture}\n") == architecture
            again = space.from_choices(json.loads(json.dumps(dict(architecture))))
            assert (again, hash(again), str(again)) == (
                architecture,
                hash(architecture),
                str(architecture),
            )

    @pytest.mark.parametrize("spoil", ["{}_9", "{}-9", "", "largest", "-{}", "{}²"])
    def test_another_text_is_shown_the_right_form(self, space, spoil):
        text = spoil.format(space.largest)
        with pytest.raises(SpaceError, match=f"in the form {space.largest}") as caught:
            space.from_text(text)
        assert caught.value.found == repr(text)

    def test_every_foreign_value_is_named_and_the_nearest_architecture(self, space):
        first, last = list(space.choices)[1], list(space.choices)[-1]
        text = str(space.from_choices(dict(space.largest)))
        foreign = {**space.largest, first: 1000, last: 999}
        with pytest.raises(SpaceError, match="an architecture of the space 'little'") as caught:
            space.from_choices(foreign)
        shown = ", ".join(map(str, space.choices[first]))
        assert f"{first} 1000 (one of {shown}); {last} 999 (" in caught.value.found
        assert caught.value.remedy == f"The nearest is {text}."

    @pytest.mark.parametrize("value", [8.0, "8", True, None, [8]])
    def test_other_than_whole_numbers(self, space, value):
        with pytest.raises(SpaceError) as caught:
            space.from_choices({**space.largest, "resolution": value})
        assert f"resolution {value!r} (one of" in caught.value.found

    def test_other_choices(self, space):
        missing = {name: value for name, value in space.largest.items() if name != "resolution"}
        for values in (missing, {**space.largest, "more": 1}, None, [8], "8"):
            with pytest.raises(SpaceError, match="copy one from winners.json"):
                space.from_choices(values)

    def test_foreign_architectures(self, space, large):
        assert large.largest not in space
        with pytest.raises(SpaceError, match="an architecture of the space 'little'"):
            space.index(large.largest)

    def test_sampling_is_uniform_and_follows_the_seed(self, space):
        rng = random.Random(0)
        drawn = [space.index(space.sample(rng)) for _ in range(100 * space.size)]
        counts = np.bincount(drawn, minlength=space.size)
        assert 60 <= counts.min() <= counts.max() <= 145
        digits = space.draw(100 * space.size, np.random.default_rng(0))
        _, counts = np.unique(digits, axis=0, return_counts=True)
        assert len(counts) == space.size
        assert 60 <= counts.min() <= counts.max() <= 145
        assert space.sample(random.Random(3)) == space.sample(random.Random(3))

    def test_mutation(self, space):
        rng = random.Random(0)
        assert space.mutate(space.largest, rng, 0.0) == space.largest
        assert {space.mutate(space.largest, rng, 1.0) for _ in range(4000)} == set(space)
        mutants = [space.mutate(space.largest, rng, 0.3) for _ in range(4000)]
        changed = np.mean([mutant.resolution != space.largest.resolution for mutant in mutants])
        assert changed == pytest.approx(0.3 / 2, abs=0.03)  # every other draw is the same value

    def test_neighbours_differ_in_one_choice(self, space):
        everything = space.to_digits(list(space))
        own = everything[space.size // 2]
        expected = everything[(everything != own).sum(1) == 1]
        found = space.neighbours(own)
        assert sorted(map(tuple, found)) == sorted(map(tuple, expected))

    def test_equal_beginnings_stand_together(self, space):
        blocks = [space.blocks(a) for a in space.by_beginning(space)]
        for length in range(1, 4):
            beginnings = [(own[:length]) for own in blocks]
            runs = [key for key, _ in itertools.groupby(beginnings)]
            assert len(runs) == len(set(runs))

    # Blocks and their sums.

    def test_keys_tell_blocks_apart_and_nothing_else(self, space):
        everything = {block for a in space for block in space.blocks(a)}
        assert len(everything) == len({block.key for block in everything})
        assert set(space.distinct_blocks()) == everything
        for resolution in space.resolutions:
            needed = {b for a in space if a.resolution == resolution for b in space.blocks(a)}
            found = space.distinct_blocks(resolution)
            assert set(found) == needed
            assert len(found) == len(needed)

    def test_first_and_last_blocks(self, space):
        for architecture in space:
            first, *middle, last = space.blocks(architecture)
            assert (first.is_first, first.is_last) == (True, False)
            assert (last.is_first, last.is_last) == (False, True)
            assert not any(block.is_first or block.is_last for block in middle)

    @pytest.mark.parametrize(("highest", "naive"), [(False, sum), (True, max)])
    def test_sums_are_those_of_each_architecture(self, space, highest, naive):
        """Random costs, so that no confusion of two blocks can cancel out."""
        rng = np.random.default_rng(0)
        costs = {block.key: rng.random() for block in space.distinct_blocks()}
        asked = []

        def cost(block):
            asked.append(block)
            return costs[block.key]

        total_of = space.sums(cost, highest)
        whole = total_of(None)
        assert asked == list(space.distinct_blocks())
        expected = [naive(costs[block.key] for block in space.blocks(a)) for a in space]
        assert whole.tolist() == pytest.approx(expected)
        digits = space.to_digits(list(space))[::-1]
        assert np.array_equal(total_of(digits), whole[::-1])

    def test_a_block_without_a_cost_spoils_only_what_has_it(self, space):
        lacking = space.blocks(space.largest)[-2].key
        total = space.sums(lambda b: float("nan") if b.key == lacking else 1.0)(None)
        for architecture, value in zip(space, total, strict=True):
            has_it = lacking in {block.key for block in space.blocks(architecture)}
            assert np.isnan(value) == has_it

    def test_covering_networks_hold_every_block_and_run(self, space):
        for resolution in space.resolutions:
            keys = {block.key for block in space.distinct_blocks(resolution)}
            networks = covering_networks(space, resolution, {*keys, "foreign"})
            assert {block.key for network in networks for block in network} == keys
            assert len(networks) <= 10
            for blocks in networks:
                images = torch.zeros(1, space.in_channels, resolution, resolution)
                outputs = space.make_network(blocks).eval().forward_blocks(images)
                assert [o.shape[1:] for o in outputs] == [b.out_shape for b in blocks]
            for key in keys:
                (network,) = covering_networks(space, resolution, {key})
                assert key in {block.key for block in network}

    # Networks.

    def test_costs_are_what_torch_counts(self, space):
        for architecture in some_of(space):
            with torch.device("meta"):
                network = space.make_network(space.blocks(architecture))
                images = images_of(space, architecture, 1).to("meta")
            with FlopCounterMode(display=False) as counter:
                features = network(images)
            assert counter.get_total_flops() == 2 * space.macs(architecture)
            assert sum(p.numel() for p in network.parameters()) == space.params(architecture)
            assert features.shape == (1, space.feature_dim(architecture))

    @torch.no_grad()
    def test_outputs_are_those_of_the_blocks_and_stages(self, space):
        for architecture in some_of(space):
            blocks = space.blocks(architecture)
            network = randomised(space.make_network(blocks))
            images = images_of(space, architecture)
            outputs = network.forward_blocks(images)
            assert [output.shape[1:] for output in outputs] == [b.out_shape for b in blocks]
            assert torch.equal(outputs[-1], outputs[-2].mean(dim=(2, 3)))
            assert torch.equal(network(images), outputs[-1])
            stages = space.stage_blocks(architecture)
            assert list(network.stage_channels) == list(stages) == space.stages
            maps = [outputs[end - 1] for end in network.stage_ends()]
            assert [m.shape[1:] for m in maps] == [own[-1].out_shape for own in stages.values()]
            subnet = Subnet(network, "stages").eval()
            assert all(map(torch.equal, subnet(images), maps))
            assert subnet.stage_channels == [m.shape[1] for m in maps]
            fc, projector = nn.Linear(network.feature_dim, 3), nn.Linear(network.feature_dim, 5)
            for name, expected in (
                ("features", outputs[-1]),
                ("logits", fc(outputs[-1])),
                ("embeddings", projector(outputs[-1])),
            ):
                assert torch.equal(Subnet(network, name, fc, projector).eval()(images), expected)

    @torch.no_grad()
    def test_steps_name_all_their_modules(self, space):
        blocks, images = space.blocks(space.largest), images_of(space, space.largest)
        one, other = (randomised(space.make_network(blocks)) for _ in range(2))
        nn.init.normal_(next(one.parameters()))
        assert not torch.equal(one(images), other(images))
        for step in one.steps():
            for name in step.modules:
                other.set_submodule(name, one.get_submodule(name))
        assert torch.equal(one(images), other(images))

    @torch.no_grad()
    def test_extracted_networks_equal_active_subnets(self, supernet):
        space, weights = supernet.space, supernet.backbone.state_dict()
        before = supernet(images_of(space, space.largest))
        for architecture in some_of(space):
            images = images_of(space, architecture)
            supernet.activate(architecture)
            expected = supernet(images)
            network = extract(space, weights, architecture)
            assert expected.abs().max() > 0.01
            assert (network(images) - expected).abs().max() <= 1e-5
            assert not any(module.training for module in network.modules())
            assert {type(m).__module__ for m in network.modules() if isinstance(m, nn.Conv2d)} == {
                "torch.nn.modules.conv"
            }
        supernet.activate(space.largest)
        assert torch.equal(supernet(images_of(space, space.largest)), before)

    @torch.no_grad()
    def test_extracted_networks_equal_active_subnets_in_training(self, supernet):
        """One batch: the extracted network in training, and what calibration leaves alone."""
        space = supernet.space
        kept = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
        for architecture in some_of(space):
            images = images_of(space, architecture, 8)
            network = extract(space, supernet.backbone.state_dict(), architecture)
            supernet.activate(architecture)
            expected = supernet.train()(images)
            supernet.load_state_dict(kept)
            found = network.train()(images)
            assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)
            recalibrate(network, images)
        assert all(torch.equal(t, kept[name]) for name, t in supernet.state_dict().items())

    def test_gradients_reach_the_active_part_only(self, supernet):
        space = supernet.space
        supernet.activate(space.smallest)
        supernet.train()(images_of(space, space.smallest)).square().sum().backward()
        active = dict(
            extract(space, supernet.backbone.state_dict(), space.smallest).named_parameters()
        )
        for name, parameter in supernet.backbone.named_parameters():
            if name not in active:
                assert parameter.grad is None
                continue
            grad = parameter.grad.clone()
            shape = active[name].shape
            leading = tuple(slice(0, length) for length in shape[:2])
            used = (*leading, *centre(grad.shape[2:], shape[2:]))
            assert grad[used].any(), name
            grad[used] = 0
            assert not grad.any(), name

    def test_foreign_architectures_change_nothing(self, supernet, large):
        space = supernet.space
        for use in (
            lambda: supernet.activate(large.largest),
            lambda: extract(space, supernet.backbone.state_dict(), large.largest),
        ):
            with pytest.raises(SpaceError, match="an architecture of the space 'little'"):
                use()
        assert supernet.active == space.largest
        assert supernet(images_of(space, space.largest)).shape == (4, supernet.feature_dim)

    def test_weights_come_back_from_a_file(self, supernet, tmp_path):
        space, backbone = supernet.space, supernet.backbone.state_dict()
        projector = Projector(supernet.feature_dim, 10, 6, True).state_dict()
        path = tmp_path / "model.safetensors"
        SupernetWeights(space, backbone, projector, backbone, projector).save(path)
        loaded = SupernetWeights.load(path, space)
        assert loaded.query.keys() == backbone.keys()
        assert all(torch.equal(loaded.query[name], tensor) for name, tensor in backbone.items())
        for architecture in some_of(space):
            images = images_of(space, architecture)
            features = loaded.subnet(architecture)(images)
            assert features.shape == (4, space.feature_dim(architecture))
            assert loaded.embedder(architecture)(images).shape == (4, 6)

    # Spaces that cannot be laid out.

    def test_a_large_space_samples_and_sums_without_being_laid_out(self, large):
        assert type(large.size) is int
        assert large.size > max(10**8, LIMIT)
        rng = random.Random(0)
        drawn = [large.smallest, large.largest, *(large.sample(rng) for _ in range(20))]
        assert [large.architecture(large.index(a)) for a in drawn] == drawn
        digits = large.to_digits(drawn)
        for cost in ("macs", "params"):
            sums = large.sums(lambda block, cost=cost: getattr(block, cost))(digits)
            assert sums.tolist() == [getattr(large, cost)(a) for a in drawn]
        live = large.sums(lambda block: block.live_values, highest=True)(digits)
        assert live.tolist() == [max(b.live_values for b in large.blocks(a)) for a in drawn]
        digits = large.draw(1000, np.random.default_rng(0))
        assert len(large.sums(lambda block: 1.0)(digits)) == 1000
        assert all(large.from_digits(row) in large for row in digits[:20])
        assert len(large.neighbours(digits[0])) == sum(len(v) - 1 for v in large.choices.values())
        assert large.mutate(drawn[2], rng, 0.5) in large

    def test_a_large_space_refuses_to_be_laid_out(self, large):
        for lay_out in (
            lambda: iter(large),
            lambda: large.sums(lambda block: 1.0)(None),
            lambda: large.sums(lambda block: 1.0, highest=True)(None),
        ):
            with pytest.raises(SpaceError, match=f"at most {LIMIT:,} architectures"):
                lay_out()
