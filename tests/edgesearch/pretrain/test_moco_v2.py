"""The loss against a slow one written independently, and what moves in a step."""

import math

import pytest
import torch
import torch.nn.functional as F

from edgesearch.pretrain.moco_v2 import info_nce


def random_embeddings(count, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator), dim=1)


def slow_info_nce(queries, keys, queue, temperature):
    losses = []
    for query, key in zip(queries.tolist(), keys.tolist(), strict=True):
        candidates = [key, *queue.T.tolist()]
        scores = [
            math.exp(sum(a * b for a, b in zip(query, c, strict=True)) / temperature)
            for c in candidates
        ]
        losses.append(-math.log(scores[0] / sum(scores)))
    return sum(losses) / len(losses)


class TestInfoNce:
    queries = random_embeddings(6, seed=0)
    keys = F.normalize(queries + 0.5 * random_embeddings(6, seed=1), dim=1)
    queue = random_embeddings(9, seed=2).T.contiguous()

    @pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
    def test_equals_the_slow_loss(self, temperature):
        found = info_nce(self.queries, self.keys, self.queue, temperature)
        expected = slow_info_nce(self.queries, self.keys, self.queue, temperature)
        assert float(found) == pytest.approx(expected, rel=1e-5)

    def test_order_of_the_batch_does_not_matter(self):
        order = torch.tensor([3, 1, 5, 0, 2, 4])
        loss = info_nce(self.queries, self.keys, self.queue, 0.2)
        torch.testing.assert_close(
            info_nce(self.queries[order], self.keys[order], self.queue, 0.2), loss
        )
        assert not torch.isclose(info_nce(self.queries, self.keys[order], self.queue, 0.2), loss)

    def test_order_of_the_queue_does_not_matter(self):
        flipped = info_nce(self.queries, self.keys, self.queue.flip(1), 0.2)
        torch.testing.assert_close(flipped, info_nce(self.queries, self.keys, self.queue, 0.2))

    def test_turning_everything_does_not_matter(self):
        turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(3)))[0]
        turned = info_nce(self.queries @ turn, self.keys @ turn, turn.T @ self.queue, 0.2)
        torch.testing.assert_close(turned, info_nce(self.queries, self.keys, self.queue, 0.2))


@pytest.mark.parametrize("end", ["largest", "smallest"])
def test_loss_is_that_of_the_active_architecture_on_the_first_views(
    new_method, two_views, pinhole, end
):
    method, views, architecture = new_method("moco_v2"), two_views(), getattr(pinhole, end)
    targets = method.targets(views)
    torch.testing.assert_close(targets, method.key(views[1]))
    method.activate(architecture)
    shapes = []
    method.query.supernet.register_forward_pre_hook(
        lambda _, inputs: shapes.append(inputs[0].shape)
    )
    loss, embeddings, _ = method.loss(views, targets)
    side = architecture.resolution
    assert shapes == [(4, 1, side, side)]
    images = F.interpolate(views[0], (side, side), mode="bilinear", antialias=True)
    torch.testing.assert_close(embeddings, method.query(images))
    expected = slow_info_nce(embeddings.detach(), targets, method.queue.keys, 0.2)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_a_step_moves_the_key_encoder_by_its_share_and_fills_the_queue(new_method):
    method, keys = new_method("moco_v2", ema_momentum=0.9), random_embeddings(4, 6)
    with torch.no_grad():
        for number, parameter in enumerate(method.query.parameters()):
            parameter.add_(0.1 * (number + 1))
    before = [p.clone() for p in method.key.parameters()]
    queries = [p.clone() for p in method.query.parameters()]
    queue = method.queue.keys.clone()
    method.after_step(keys, 0.0)
    for old, query, new in zip(before, queries, method.key.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * query, rtol=1e-6, atol=1e-7)
    assert all(map(torch.equal, queries, method.query.parameters()))
    assert torch.equal(method.queue.keys, torch.cat([keys.T, queue[:, 4:]], dim=1))
