"""The loss against a slow one written independently."""

import math

import pytest
import torch

from edgesearch.pretrain.passes import Passes
from edgesearch.pretrain.simclr import nt_xent


def slow_nt_xent(first, second, temperature):
    """View by view: its partner against all other views but itself."""
    rows = first.tolist() + second.tolist()
    count = len(first)
    total = 0.0
    for i, row in enumerate(rows):
        partner = (i + count) % (2 * count)
        scores = {
            j: math.exp(sum(a * b for a, b in zip(row, other, strict=True)) / temperature)
            for j, other in enumerate(rows)
            if j != i
        }
        total -= math.log(scores[partner] / sum(scores.values()))
    return total / len(rows)


class TestNtXent:
    @pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
    def test_equals_the_slow_loss(self, embeddings_of, temperature):
        first, second = embeddings_of(6, 5), embeddings_of(6, 5, seed=1)
        expected = slow_nt_xent(first, second, temperature)
        assert float(nt_xent(first, second, temperature)) == pytest.approx(expected, rel=1e-5)

    def test_exchanging_the_views_does_not_matter(self, embeddings_of):
        first, second = embeddings_of(6, 5), embeddings_of(6, 5, seed=1)
        torch.testing.assert_close(nt_xent(first, second, 0.2), nt_xent(second, first, 0.2))

    def test_is_lower_for_views_that_agree(self, embeddings_of):
        first, second = embeddings_of(6, 5), embeddings_of(6, 5, seed=1)
        assert nt_xent(first, first, 0.2) < nt_xent(first, second, 0.2)


def test_both_views_are_one_batch_to_a_subnet(new_method, two_views, pinhole):
    method, views, sizes = new_method("simclr", temperature=0.3), two_views(), []
    method.query.supernet.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
    method.activate(pinhole.smallest)
    loss, embeddings, _ = method.loss(views, method.targets(views))
    assert [tuple(size) for size in sizes] == [(8, 1, 12, 12)]
    both = method.query(method.query.resized(torch.cat(views))).detach()
    torch.testing.assert_close(embeddings, both[:4])
    assert loss.item() == pytest.approx(slow_nt_xent(both[:4], both[4:], 0.3), rel=1e-4)


def test_groups_of_the_whole_batch_hold_one_view_each(new_method, two_views, pinhole):
    """Unlike no groups, where both views are normalised together."""
    found = []
    for size in (None, 4):
        method, views = new_method("simclr"), two_views()
        Passes(method, 4, group_size=size)
        method.activate(pinhole.largest)
        found.append(method.loss(views, None))
        alone = method.query(method.query.resized(views[0]))
        same = torch.allclose(found[-1].embeddings, alone, atol=1e-5)
        assert same == (size is not None)
    assert not torch.isclose(found[0].value, found[1].value)


def test_there_is_no_key_encoder(new_method):
    method = new_method("simclr")
    assert method.key is None
    assert all(name.startswith("query.") for name in method.state_dict())
