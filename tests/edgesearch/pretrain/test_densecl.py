"""Correspondence and loss for places against slow ones written independently."""

import math

import pytest
import torch
import torch.nn.functional as F

from edgesearch.pretrain.densecl import best_match, dense_info_nce


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def slow_match(first, second):
    """Image by image and place by place."""
    found = []
    for one, two in zip(first, second, strict=True):
        places = [
            [column.tolist() for column in map_.flatten(1).T]
            for map_ in (one.double(), two.double())
        ]
        found.append(
            [
                max(
                    range(len(places[1])),
                    key=lambda j, p=p: dot(p, places[1][j]) / math.dist(places[1][j], [0] * len(p)),
                )
                for p in places[0]
            ]
        )
    return found


def slow_dense_loss(queries, keys, match, queue, temperature):
    losses = []
    for image in range(len(queries)):
        for place in range(queries.shape[2]):
            query = queries[image, :, place].tolist()
            positive = keys[image, :, int(match[image][place])].tolist()
            scores = [
                math.exp(dot(query, other) / temperature) for other in [positive, *queue.T.tolist()]
            ]
            losses.append(-math.log(scores[0] / sum(scores)))
    return sum(losses) / len(losses)


def test_match_equals_the_slow_one():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(3, 5, 2, 3, generator=generator)
    second = torch.randn(3, 5, 4, 2, generator=generator)
    assert best_match(first, second).tolist() == slow_match(first, second)


def test_match_of_a_moved_map_follows_the_move():
    features = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    moved = 3.0 * features.roll(1, dims=3)  # how large features are does not matter
    expected = torch.arange(16).view(4, 4).roll(-1, dims=1).flatten()
    assert torch.equal(best_match(features, moved), expected.expand(2, -1))


class TestLoss:
    @pytest.fixture
    def parts(self, embeddings_of):
        match = torch.randint(0, 4, (3, 6), generator=torch.Generator().manual_seed(3))
        queries, keys = embeddings_of(3, 5, 6), embeddings_of(3, 5, 4, seed=1)
        return queries, keys, match, embeddings_of(9, 5, seed=2).T

    def test_equals_the_slow_loss(self, parts):
        expected = slow_dense_loss(*parts, 0.2)
        assert float(dense_info_nce(*parts, 0.2)) == pytest.approx(expected, rel=1e-5)

    def test_order_of_the_places_does_not_matter(self, parts):
        queries, keys, match, queue = parts
        order = torch.tensor([3, 1, 5, 0, 2, 4])
        turned = dense_info_nce(queries[:, :, order], keys, match[:, order], queue, 0.2)
        torch.testing.assert_close(turned, dense_info_nce(*parts, 0.2))


class TestMethod:
    def test_subnets_are_narrower_and_smaller_than_the_keys(self, new_method, two_views, pinhole):
        """What the released code cannot do: other widths, and here another grid, too."""
        method, views = new_method("densecl"), two_views()
        targets = method.targets(views)
        method.activate(pinhole.smallest)
        features = method.query.supernet.feature_map(method.query.resized(views[0]))
        keys = method.key.supernet.feature_map(views[1])
        assert features.shape[1] < keys.shape[1]
        assert features.shape[2] < keys.shape[2] == targets.grid.shape[2]
        assert targets.match.shape == (4, keys.shape[2] * keys.shape[3])
        assert method.loss(views, targets).value.isfinite()

    def test_targets_by_hand(self, new_method, two_views):
        method, views = new_method("densecl", projector_bn=False).eval(), two_views()
        targets = method.targets(views)
        first, second = (method.key.supernet.feature_map(view) for view in views)
        dense = method.key.dense_projector
        for image in range(4):
            grid = torch.stack(
                [dense.project(second[image, :, y, x][None])[0] for y in range(4) for x in range(4)]
            )
            torch.testing.assert_close(
                targets.grid[image].flatten(1).T, F.normalize(grid, dim=1), rtol=1e-4, atol=1e-5
            )
            pooled = F.normalize(grid.mean(dim=0), dim=0)
            torch.testing.assert_close(targets.pooled[image], pooled, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(targets.keys, method.key(views[1]))
        assert targets.match.tolist() == slow_match(first, second)

    @pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
    def test_loss_by_hand(self, new_method, two_views, pinhole, weight):
        method, views = new_method("densecl", dense_weight=weight), two_views()
        targets = method.targets(views)
        method.activate(pinhole.smallest)
        loss, embeddings, _ = method.loss(views, targets)
        features = method.query.supernet.feature_map(method.query.resized(views[0]))
        places = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
        grid = method.query.dense_projector.project(places).detach()
        grid = grid.view(4, 3, 3, 6).permute(0, 3, 1, 2)
        grid = F.normalize(F.interpolate(grid, (4, 4), mode="bilinear"), dim=1).flatten(2)
        dense = slow_dense_loss(
            grid, targets.grid.flatten(2), targets.match, method.dense_queue.keys, 0.2
        )
        whole = slow_dense_loss(
            embeddings.detach()[:, :, None],
            targets.keys[:, :, None],
            [[0]] * 4,
            method.queue.keys,
            0.2,
        )
        assert loss.item() == pytest.approx((1 - weight) * whole + weight * dense, rel=1e-4)

    def test_both_queues_are_filled(self, new_method, two_views):
        method = new_method("densecl")
        targets = method.targets(two_views())
        method.after_step(targets, 0.0)
        assert torch.equal(method.queue.keys[:, :4], targets.keys.T)
        assert torch.equal(method.dense_queue.keys[:, :4], targets.pooled.T)
        assert not torch.equal(targets.keys, targets.pooled)

    def test_a_projector_of_places_is_two_convolutions_of_1_pixel(self, new_method):
        dense = new_method("densecl", projector_bn=False).query.dense_projector
        features = torch.randn(2, 12, 3, 3)  # narrower than the largest network's 16
        hidden = F.conv2d(features, dense.fc1.weight[:, :12, None, None], dense.fc1.bias)
        expected = F.conv2d(F.relu(hidden), dense.fc2.weight[:, :, None, None], dense.fc2.bias)
        found = dense.project(features.permute(0, 2, 3, 1).flatten(0, 2))
        torch.testing.assert_close(found.view(2, 3, 3, 6).permute(0, 3, 1, 2), expected)
