"""What heads compute, summed over maps, against whole heads that are run."""

import random

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgesearch.families import load_space
from edgesearch.latency.workloads import random_model
from edgesearch.tasks.backbone import MapShapes
from edgesearch.tasks.head_costs import HeadCosts, TaskHead
from edgesearch.tasks.known_tasks import TASKS

HEADS = [(task, head) for task, record in TASKS.items() for head in record.heads]


@pytest.fixture(scope="module")
def spaces():
    sizes = {"mobile_small": (96, 128), "resnet18to34": (64, 96)}
    return {
        name: type(space).from_dict({**space.to_dict(), "resolutions": sizes[name]})
        for name in sizes
        for space in [load_space(name)]
    }


@pytest.mark.parametrize("name", ["mobile_small", "resnet18to34"])
@pytest.mark.parametrize(("task", "head"), HEADS)
def test_sums_over_parts_are_what_whole_heads_compute(spaces, name, task, head):
    space = spaces[name]
    costs = HeadCosts(space, TaskHead(task, head, 3))
    macs_of = space.sums_over_parts(lambda *part: costs.of_part(*part)[0])
    rng = random.Random(0)
    for architecture in (space.smallest, space.sample(rng), space.sample(rng)):
        model = random_model(space, architecture, costs.head)
        own = model.backbone.shapes
        shapes = costs.shapes(architecture)
        # Behind the stem of a residual network; a head reads none of what is lacking.
        count = len(shapes.sizes)
        assert (own.channels[-count:], own.sizes[-count:]) == (shapes.channels, shapes.sizes)
        size = model.resolution
        with torch.no_grad():
            maps = model.backbone(torch.zeros(1, 3, size, size))
            with FlopCounterMode(display=False) as counter:
                model.head.raw(maps)
        expected = counter.get_total_flops() / 2  # of convolutions and matrix products
        assert costs.of(architecture)[0] == expected
        assert macs_of(space.to_digits([architecture]))[0] == expected


def test_values_are_those_of_the_layers_and_the_outputs(spaces):
    space, head = spaces["mobile_small"], TaskHead("classification", "linear", 5)
    features = space.feature_dim(space.largest)
    # The linear layer reads and writes; the head gives its output.
    assert HeadCosts(space, head).of(space.largest).tolist() == [5 * features, features + 5 + 5]


def test_a_dense_head_goes_without_what_follows_the_stages(spaces):
    space = spaces["mobile_small"]
    dense = HeadCosts(space, TaskHead("detection", "ssdlite", 3))
    assert space.parts[dense.last_part].stage == space.stages[-1]
    linear = HeadCosts(space, TaskHead("classification", "linear", 3))
    assert linear.last_part == len(space.parts) - 1
    model = random_model(space, space.smallest, dense.head)
    assert "last" not in dict(model.backbone.named_children())


@pytest.mark.parametrize("head", ["fcn", "deeplabv3"])
def test_a_network_ends_with_the_last_map_that_its_head_reads(spaces, head):
    space = spaces["mobile_small"]
    costs = HeadCosts(space, TaskHead("segmentation", head, 2))
    assert costs.last_part < HeadCosts(space, TaskHead("segmentation", "lraspp", 2)).last_part
    model = random_model(space, space.largest, costs.head)
    images = torch.rand(2, 3, model.resolution, model.resolution)
    model.train()(images).square().mean().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    # At sizes that strides do not divide, maps are rounded up.
    shapes = MapShapes((8, 8, 8, 8, 8), (50, 25, 13, 7, 4), 100)
    assert [shapes.first_below(stride) for stride in (4, 8, 16, 32, 64)] == [1, 2, 3, 4, 4]


def test_no_network_is_built_for_a_space_of_any_size(monkeypatch):
    space = load_space("mobile_small")
    monkeypatch.setattr(type(space), "make_network", None)
    costs = HeadCosts(space, TaskHead("segmentation", "lraspp", 2))
    digits = space.draw(1000, np.random.default_rng(0))
    sums = space.sums_over_parts(lambda *part: costs.of_part(*part)[0])(digits)
    assert (sums > 0).all()
    assert len(costs._known) < 100


def test_sums_over_parts_agree_on_rows_and_on_the_whole_space(space):
    def cost(number, resolution, blocks):
        return number + resolution / 100 + sum(block.macs for block in blocks)

    found = space.sums_over_parts(cost)
    whole = found(None)
    rows = found(space.to_digits(list(space)))
    parts = len(space.parts)
    for index, architecture in enumerate(space):
        fixed = sum(range(parts)) + parts * architecture.resolution / 100
        assert whole[index] == pytest.approx(fixed + space.macs(architecture))
        assert rows[index] == pytest.approx(whole[index])
