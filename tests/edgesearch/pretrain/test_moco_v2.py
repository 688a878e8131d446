"""The loss against a slow one written independently, and what moves in a step."""

import math
import random

import pytest
import torch
import torch.nn.functional as F

from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.pretrain.moco_v2 import MoCoV2, info_nce

SPACE = ResNetSpace(
    name="pinhole",
    block="basic",
    stem="small",
    stem_widths=(4, 8),
    stage_widths=((4, 8), (8, 16)),
    stage_depths=((1, 2), (1, 2)),
    resolutions=(12, 16),
    in_channels=1,
)


def make_method(**options):
    sizes = {"queue_size": 12, "projector_hidden_dim": 10, "projector_dim": 6, "seed": 0}
    return MoCoV2(SPACE, **{**sizes, **options}).train()


def some_views(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(count, 1, 16, 16, generator=generator) for _ in range(2))


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


class TestEncoders:
    def test_start_equal(self):
        method = make_method()
        query, key = method.query.state_dict(), method.key.state_dict()
        assert all(torch.equal(query[name], key[name]) for name in query)
        assert not any(p.requires_grad for p in method.key.parameters())
        assert all(p.requires_grad for p in method.query.parameters())

    def test_share_no_memory(self):
        method = make_method()
        with torch.no_grad():
            for parameter in method.query.parameters():
                parameter.fill_(7.0)
        assert not any((parameter == 7.0).any() for parameter in method.key.parameters())

    def test_follow_the_seed_and_leave_the_random_state_alone(self):
        state = torch.get_rng_state()
        once, again, other = (make_method(seed=seed).state_dict() for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(once[name], again[name]) for name in once)
        assert not torch.equal(once["queue.keys"], other["queue.keys"])

    def test_queue_starts_with_embeddings_of_length_1(self):
        torch.testing.assert_close(make_method().queue.keys.norm(dim=0), torch.ones(12))


class TestTargets:
    def test_are_the_largest_networks_keys_of_the_second_views(self):
        method, views = make_method(), some_views()
        method.activate(SPACE.smallest)
        expected = method.key(views[1])
        found = method.targets(views)
        assert method.key.supernet.active == SPACE.largest
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(4))

    def test_no_gradient_reaches_the_keys(self):
        method, views = make_method(), some_views()
        targets = method.targets(views)
        assert not targets.requires_grad
        method.loss(views, targets).value.backward()
        assert all(parameter.grad is None for parameter in method.key.parameters())
        assert all(parameter.grad is not None for parameter in method.query.parameters())


class TestLoss:
    @pytest.mark.parametrize("architecture", [SPACE.largest, SPACE.smallest])
    def test_is_that_of_the_active_architecture_on_the_first_views(self, architecture):
        method, views = make_method(), some_views()
        targets = method.targets(views)
        method.activate(architecture)
        loss, embeddings = method.loss(views, targets)
        side = architecture.resolution
        images = F.interpolate(views[0], (side, side), mode="bilinear", antialias=True)
        torch.testing.assert_close(embeddings, method.query(images))
        expected = slow_info_nce(embeddings.detach(), targets, method.queue.keys, 0.2)
        assert loss.item() == pytest.approx(expected, rel=1e-4)

    def test_images_have_the_resolution_of_the_architecture(self):
        method, views = make_method(), some_views()
        shapes = []
        method.query.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
        for side in SPACE.resolutions:
            method.activate(SPACE.from_text(f"stem8_w8-16_d1-1_r{side}"))
            method.loss(views, method.targets(views))
        assert [tuple(shape) for shape in shapes] == [(4, 1, 12, 12), (4, 1, 16, 16)]


class TestAfterStep:
    def test_moves_the_key_encoder_by_exactly_its_share(self):
        method = make_method(ema_momentum=0.9)
        with torch.no_grad():
            for number, parameter in enumerate(method.query.parameters()):
                parameter.add_(0.1 * (number + 1))
        before = [p.clone() for p in method.key.parameters()]
        queries = [p.clone() for p in method.query.parameters()]
        method.after_step(random_embeddings(4, 6), 0.0)
        for old, query, new in zip(before, queries, method.key.parameters(), strict=True):
            torch.testing.assert_close(new, 0.9 * old + 0.1 * query, rtol=1e-6, atol=1e-7)
        assert all(map(torch.equal, queries, method.query.parameters()))

    def test_puts_the_keys_into_the_queue(self):
        method, keys = make_method(), random_embeddings(4, 6)
        before = method.queue.keys.clone()
        method.after_step(keys, 0.0)
        assert torch.equal(method.queue.keys, torch.cat([keys.T, before[:, 4:]], dim=1))


def test_random_architectures_can_be_trained():
    method, views = make_method(projector_bn=True), some_views()
    rng = random.Random(0)
    for _ in range(5):
        method.activate(SPACE.sample(rng))
        assert method.loss(views, method.targets(views)).value.isfinite()
