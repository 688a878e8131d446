"""The order of events in DATA's released code, one by one."""

import copy

import pytest
import torch

from edgesearch.pretrain.faithful import faithful_step
from edgesearch.pretrain.moco_v2 import info_nce
from edgesearch.pretrain.sandwich import sandwich_architectures, sandwich_step

LR = 0.05


@pytest.fixture
def method(new_method):
    return new_method("moco_v2", ema_momentum=0.9)


@pytest.fixture
def architectures(pinhole):
    return sandwich_architectures(pinhole, 1, seed=0, step=0)


def sgd(method):
    return torch.optim.SGD(method.query.parameters(), LR)


def differ(method, by=0.1):
    """Let the query encoder be elsewhere than the key encoder."""
    with torch.no_grad():
        for weight in method.query.parameters():
            weight.add_(by)
    return method


def test_keys_are_encoded_for_each_subnet_and_the_queue_advances_three_batches(
    method, two_views, architectures
):
    passes = []
    method.key.register_forward_hook(lambda *_: passes.append("key"))
    supernet = method.query.supernet
    supernet.register_forward_hook(lambda *_: passes.append(supernet.active))
    faithful_step(method, two_views(2), architectures, sgd(method))
    assert passes == [part for a in architectures for part in ("key", a)]
    assert int(method.queue.position) == 6
    other = method.queue.position.clone()
    sandwich_step(method, two_views(2), architectures, sgd(method))
    assert int(method.queue.position) == int(other) + 2


def test_key_encoder_moves_three_times_towards_the_weights_before_the_step(
    method, two_views, architectures
):
    differ(method)
    before = [w.detach().clone() for w in method.key.parameters()]
    queries = [w.detach().clone() for w in method.query.parameters()]
    faithful_step(method, two_views(), architectures, sgd(method))
    for former, query, key in zip(before, queries, method.key.parameters(), strict=True):
        expected = 0.9**3 * former + (1 - 0.9**3) * query
        torch.testing.assert_close(key, expected, rtol=1e-5, atol=1e-6)
    changed = zip(queries, method.query.parameters(), strict=True)
    assert any(not torch.equal(former, query) for former, query in changed)


def test_losses_and_queue_by_hand(method, two_views, architectures):
    """Each pass sees a key encoder that has moved, and former passes' keys as negatives."""
    views, alone = two_views(), copy.deepcopy(differ(method))
    result = faithful_step(method, views, architectures, sgd(method))
    queue, losses = alone.queue.keys.clone(), []
    for number, architecture in enumerate(architectures):
        for key, query in zip(alone.key.parameters(), alone.query.parameters(), strict=True):
            key.data = 0.9 * key.data + 0.1 * query.data
        keys = alone.key(views[1])
        alone.query.supernet.activate(architecture)
        queries = alone.query(alone.query.resized(views[0]))
        losses.append(info_nce(queries, keys, queue, 0.2).item())
        queue[:, 4 * number : 4 * number + 4] = keys.T
    assert result.losses == pytest.approx(losses, rel=1e-4)
    torch.testing.assert_close(method.queue.keys, queue, rtol=1e-4, atol=1e-5)


def test_no_weight_is_trained_if_a_loss_is_not_finite(method, two_views, architectures):
    views = two_views()
    views[0][0, 0, 0, 0] = float("nan")
    before = [w.detach().clone() for w in method.query.parameters()]
    assert not faithful_step(method, views, architectures, sgd(method)).finite
    assert all(map(torch.equal, before, method.query.parameters()))
