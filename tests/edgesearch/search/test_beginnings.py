"""Candidates that begin alike: the same figures as one by one, with less to compute."""

import itertools

import pytest
import torch
from torch import nn

from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.search import beginnings as beginnings_module
from edgesearch.search.agreement import Agreement
from edgesearch.search.beginnings import Member, families
from edgesearch.search.settings import SearchSettings
from edgesearch.supernet.weights import SupernetWeights

IMAGES, BATCH = 40, 16
BOTTLENECKS = ResNetSpace(
    name="deep",
    block="bottleneck",
    stem="imagenet",
    stem_widths=(8, 16),
    stage_widths=((8, 16), (8, 16), (16,)),
    stage_depths=((1, 2), (1, 3), (1, 2)),
    resolutions=(32, 48),
)


def pixels(resolution):
    generator = torch.Generator().manual_seed(resolution)
    images = torch.rand(IMAGES, 3, resolution, resolution, generator=generator)
    return images.contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module", params=["toy", "deep"])
def weights(request, space, random_state):
    chosen = space if request.param == "toy" else BOTTLENECKS
    return SupernetWeights(chosen, *random_state(chosen, 0), *random_state(chosen, 1))


@pytest.fixture
def make(weights):
    def make(**options):
        return Agreement(
            weights,
            lambda resolution, first, last: pixels(resolution)[first:last],
            pixels,
            BATCH,
            IMAGES,
            SearchSettings(**options),
        )

    return make


@pytest.fixture
def batch(weights):
    """Architectures of which many begin alike, in no order."""
    space = weights.space
    order = torch.randperm(space.size, generator=torch.Generator().manual_seed(0)).tolist()
    ends = [space.smallest, space.largest]
    return [*ends, *(a for i in order[:14] if (a := space.architecture(i)) not in ends)]


@pytest.fixture
def everything_is_worth_it(monkeypatch):
    monkeypatch.setattr(beginnings_module, "WORTH", 0.0)


KINDS = [
    {"task": "classification", "score": "cosine"},
    {"task": "classification", "score": "cka"},
    {"task": "detection", "score": "cosine", "stages": None},
]


@pytest.mark.usefixtures("everything_is_worth_it")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind['task']}-{kind['score']}")
def test_bit_by_bit_the_figures_of_one_by_one(weights, make, batch, kind):
    if "stages" in kind:
        kind = {**kind, "stages": [1, len(weights.space.stages)]}
    found = list(make(**kind).all_scores(batch))
    alone = [make(**kind).scores(architecture) for architecture in batch]
    assert all(torch.equal(*pair) for pair in zip(found, alone, strict=True))
    assert len({float(figures.mean()) for figures in found}) == len(batch)


@pytest.mark.usefixtures("everything_is_worth_it")
def test_statistics_are_those_of_one_by_one_and_are_known_afterwards(make, batch):
    """Each time with others beside it, of which some are known and some are not."""
    together, alone = make(), make()
    parts = batch[:9], batch[5:14], batch[9:], batch
    figures = [dict(zip(part, together.all_scores(part), strict=True)) for part in parts]
    for architecture in batch:
        expected = dict(alone.subnet(architecture).named_buffers())
        kept = together._statistics[architecture]
        assert kept.keys() == expected.keys()
        assert all(torch.equal(kept[name], value) for name, value in expected.items())
        for found in figures:
            if architecture in found:
                assert torch.equal(found[architecture], alone.scores(architecture))


@pytest.mark.usefixtures("everything_is_worth_it")
def test_no_block_is_run_twice(make, batch):
    """Convolutions are counted as they run: in calibration and scoring as many as differ."""
    agreement, runs = make(), []
    agreement(batch[0])  # the reference has run
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, *_: runs.append(module) if type(module).__name__ in BLOCKS else None
    )
    with hook:
        list(agreement.all_scores(batch[1:]))
    space = agreement.weights.space
    distinct = {
        (a.resolution, *[block.key for block in space.blocks(a)[: end + 1]])
        for a in batch[1:]
        for end in range(1, len(space.blocks(a)) - 1)
    }
    batches = IMAGES // BATCH + 1  # the last, of half a batch, counts for calibration, too
    assert len(runs) == 2 * batches * len(distinct)
    assert len(distinct) < sum(len(space.blocks(a)) - 2 for a in batch[1:])


BLOCKS = ("BasicBlock", "Bottleneck")


class TestFamilies:
    def macs_saved(self, space, family):
        blocks = [space.blocks(m.architecture)[: m.shared] for m in family]
        return [sum(block.macs for block in own) for own in blocks]

    def test_are_in_order_and_share_what_is_equal(self, space):
        found = families(space, list(space), BATCH)
        flat = [member.architecture for family in found for member in family]
        assert flat == space.by_beginning(space)
        for family in found:
            assert family[0].shared == 0
            for former, member in itertools.pairwise(family):
                own, before = (space.blocks(m.architecture) for m in (member, former))
                assert own[: member.shared] == before[: member.shared]
                assert own[member.shared] != before[member.shared] or member.shared + 1 == min(
                    len(own), len(before)
                )

    def test_little_is_not_worth_it(self, space):
        found = families(space, list(space), BATCH)
        assert 1 < len(found) < space.size
        for family in found:
            for member, saved in list(zip(family, self.macs_saved(space, family), strict=True))[1:]:
                assert saved >= 0.05 * space.macs(member.architecture)

    def test_are_as_large_as_there_is_memory(self, space, monkeypatch):
        largest = 4 * space.params(space.largest)
        assert max(map(len, families(space, list(space), BATCH))) > 3
        monkeypatch.setattr(beginnings_module, "FAMILY_BYTES", 2 * largest)
        for family in families(space, list(space), BATCH):
            weights = sum(4 * space.params(member.architecture) for member in family)
            assert len(family) == 1 or weights <= 2 * largest
        monkeypatch.setattr(beginnings_module, "FAMILY_BYTES", 0)
        assert all(len(family) == 1 for family in families(space, list(space), BATCH))

    def test_kept_outputs_count(self, space, monkeypatch):
        """Two of them, of which the second goes on from the outputs of all but the last stage."""
        first, second = (
            space.from_choices({**space.largest, "stage2_depth": depth}) for depth in (2, 3)
        )
        assert [len(f) for f in families(space, [first, second], BATCH)] == [2]
        weights = 4 * (space.params(first) + space.params(second))
        block = space.blocks(first)[5]
        kept = 4 * BATCH * block.out_channels * block.out_hw**2
        for room, sizes in ((weights + kept, [2]), (weights + kept - 1, [1, 1])):
            monkeypatch.setattr(beginnings_module, "FAMILY_BYTES", room)
            assert [len(f) for f in families(space, [first, second], BATCH)] == sizes

    def test_other_resolutions_are_other_families(self):
        found = families(BOTTLENECKS, list(BOTTLENECKS), BATCH)
        for family in found:
            assert len({member.architecture.resolution for member in family}) == 1

    def test_none(self, space):
        assert families(space, [], BATCH) == []
        assert families(space, [space.smallest], BATCH) == [[Member(space.smallest, 0)]]
