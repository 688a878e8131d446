"""The loss against a slow one written independently, the schedule, and the views."""

import math

import pytest
import torch
import torch.nn.functional as F

from edgesearch.pretrain.byol import cosine_distance
from edgesearch.pretrain.settings import AugmentationSettings


def slow_distance(predictions, keys):
    """The squared length of the difference, entry by entry."""
    rows = zip(predictions.tolist(), keys.tolist(), strict=True)
    squares = [sum((a - b) ** 2 for a, b in zip(p, k, strict=True)) for p, k in rows]
    return sum(squares) / len(squares)


class TestDistance:
    def test_equals_the_slow_loss(self, embeddings_of):
        predictions, keys = embeddings_of(7, 5), embeddings_of(7, 5, seed=1)
        found = cosine_distance(predictions, keys)
        assert float(found) == pytest.approx(slow_distance(predictions, keys), rel=1e-5)

    def test_is_0_for_the_same_and_4_for_opposites(self, embeddings_of):
        keys = embeddings_of(7, 5)
        assert float(cosine_distance(keys, keys)) == pytest.approx(0, abs=1e-6)
        assert float(cosine_distance(-keys, keys)) == pytest.approx(4)

    def test_turning_both_does_not_matter(self, embeddings_of):
        predictions, keys = embeddings_of(7, 5), embeddings_of(7, 5, seed=1)
        turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(3)))[0]
        turned = cosine_distance(predictions @ turn, keys @ turn)
        torch.testing.assert_close(turned, cosine_distance(predictions, keys))


class TestLoss:
    def test_each_view_predicts_the_key_of_the_other(self, new_method, two_views, pinhole):
        method, views = new_method("byol"), two_views()
        targets = method.targets(views)
        torch.testing.assert_close(targets[0], method.key(views[0]))
        torch.testing.assert_close(targets[1], method.key(views[1]))
        method.activate(pinhole.smallest)
        expected = 0.0
        for here, there in ((0, 1), (1, 0)):
            images = F.interpolate(views[here], (12, 12), mode="bilinear", antialias=True)
            features = method.query.supernet(images)
            projector = method.query.projector
            hidden = features @ projector.fc1.weight[:, : features.shape[1]].T
            projected = projector.fc2(F.relu(projector.bn1(hidden)))
            predicted = method.predictor(projected).detach()
            expected += slow_distance(predicted, targets[there])
        assert method.loss(views, targets).value.item() == pytest.approx(expected, rel=1e-4)

    def test_exchanging_the_views_does_not_matter(self, new_method, two_views):
        method, views = new_method("byol"), two_views()
        losses = [method.loss(v, method.targets(v)).value for v in (views, tuple(reversed(views)))]
        torch.testing.assert_close(*losses)


def test_momentum_rises_to_1_as_half_a_cosine(new_method):
    method = new_method("byol", ema_momentum=0.9)
    assert method.momentum_at(0.0) == pytest.approx(0.9)
    assert method.momentum_at(0.5) == pytest.approx(0.95)
    assert method.momentum_at(0.25) == pytest.approx(1 - 0.1 * (1 + math.sqrt(0.5)) / 2)
    assert method.momentum_at(1.0) == pytest.approx(1.0)


def test_after_a_step_the_key_encoder_keeps_the_share_of_this_moment(new_method):
    method = new_method("byol", ema_momentum=0.9)
    with torch.no_grad():
        for weight in method.query.parameters():
            weight.add_(1.0)
    before = [weight.clone() for weight in method.key.parameters()]
    method.after_step((torch.zeros(1), torch.zeros(1)), 0.5)
    pairs = zip(before, method.query.parameters(), method.key.parameters(), strict=True)
    for former, query, key in pairs:
        torch.testing.assert_close(key, 0.95 * former + 0.05 * query)


def test_views_are_those_of_the_paper(new_method):
    asked = AugmentationSettings(blur_probability=1.0, solarize_probability=0.2)
    first, second = new_method("byol").views(asked)
    assert (first.blur_probability, first.solarize_probability) == (1.0, 0.0)
    assert (second.blur_probability, second.solarize_probability) == (0.1, 0.2)
    assert first.jitter == second.jitter == asked.jitter
