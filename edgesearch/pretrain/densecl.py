"""DenseCL: MoCo v2's contrast for whole images and for each position of the feature map.

Source: Wang et al., "Dense contrastive learning for self-supervised visual pre-training" (CVPR
2021, arXiv 2011.09157), section 3.

As in the paper, backbone features decide which position of the second view matches a position of
the first. There, query and key encoder see one view each; in a supernet their features differ in
length. So here the key encoder, always the largest network, sees both views: matches are computed
once per step and hold for all subnets, at the cost of one more pass of it. (Matching projected
features would cost nothing, but the paper found it worse.) The smaller grid of a subnet of lower
resolution is interpolated to that of the keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from edgesearch.pretrain.encoder import Encoder
from edgesearch.pretrain.key_queue import KeyQueue
from edgesearch.pretrain.method import Encode, MomentumMethod, SubnetLoss, Views, at_once
from edgesearch.pretrain.moco_v2 import info_nce
from edgesearch.training.precision import in_full_precision


@in_full_precision
def best_match(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """For each position of one map, the most similar position of the other (equation 3).

    Args:
        first: (N, C, H, W).
        second: (N, C, H', W').

    Returns:
        (N, H·W) indices in 0 … H'·W' − 1.
    """
    first = F.normalize(first.flatten(2), dim=1)
    second = F.normalize(second.flatten(2), dim=1)
    return (first.transpose(1, 2) @ second).argmax(dim=2)


@in_full_precision
def dense_info_nce(
    queries: torch.Tensor,
    keys: torch.Tensor,
    match: torch.Tensor,
    queue: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """`info_nce` for each position with the key of the matching position (equation 2).

    Args:
        queries: (N, D, S), each position of length 1.
        keys: (N, D, S'), each position of length 1.
        match: (N, S) indices of the matching positions in 0 … S' − 1.
        queue: (D, K), columns of length 1; the negatives.
        temperature: T.

    Returns:
        Mean over batch and positions, a scalar.
    """
    positives = keys.gather(2, match[:, None].expand_as(queries))
    flat_queries, flat_keys = (x.transpose(1, 2).flatten(0, 1) for x in (queries, positives))
    return info_nce(flat_queries, flat_keys, queue, temperature)


class DenseTargets(NamedTuple):
    """The key encoder's outputs for a batch.

    Attributes:
        keys: (N, D), of length 1, of the second views.
        grid: (N, D, H, W) of the second views, each position of length 1.
        pooled: (N, D), of length 1: means of the grids before normalisation.
        match: (N, H·W): the position of the second view for each position of the first.
    """

    keys: torch.Tensor
    grid: torch.Tensor
    pooled: torch.Tensor
    match: torch.Tensor


class DenseCL(MomentumMethod):
    """Query and key encoder, each with a second, dense projector, and two queues.

    The paper's dense projector is two 1×1 convolutions, equivalent to a `Projector` applied to each
    position.
    """

    has_dense_projector = True

    def build(self, dim: int, *, queue_size: int, temperature: float, dense_weight: float) -> None:
        """See `Method`; `dense_weight` is the paper's λ."""
        self.temperature = temperature
        self.dense_weight = dense_weight
        self.queue = KeyQueue(dim, queue_size)
        self.dense_queue = KeyQueue(dim, queue_size)

    @torch.no_grad()
    def targets(self, views: Views, encode: Encode = at_once) -> DenseTargets:
        """Keys of the second views, and their matches with positions of the first."""
        return encode(self._encoded, *views[:2])

    def _encoded(self, first_views: torch.Tensor, second_views: torch.Tensor) -> DenseTargets:
        first = self.key.supernet.feature_map(first_views)
        second = self.key.supernet.feature_map(second_views)
        keys = self.key.projector(second.mean(dim=(2, 3)))
        grid = _projected_grid(self.key, second)
        pooled = F.normalize(grid.mean(dim=(2, 3)), dim=1)
        return DenseTargets(keys, F.normalize(grid, dim=1), pooled, best_match(first, second))

    def loss(self, views: Views, targets: DenseTargets) -> SubnetLoss:
        """The loss of the active architecture on the first views."""
        features = self.query.supernet.feature_map(self.query.resized(views[0]))
        pooled = features.mean(dim=(2, 3))
        queries = self.query.projector(pooled)
        grid = _projected_grid(self.query, features)
        if grid.shape != targets.grid.shape:
            grid = F.interpolate(grid, targets.grid.shape[2:], mode="bilinear")
        whole = info_nce(queries, targets.keys, self.queue.keys, self.temperature)
        dense = dense_info_nce(
            F.normalize(grid, dim=1).flatten(2),
            targets.grid.flatten(2),
            targets.match,
            self.dense_queue.keys,
            self.temperature,
        )
        loss = (1 - self.dense_weight) * whole + self.dense_weight * dense
        return SubnetLoss(loss, queries, features)

    def after_step(self, targets: DenseTargets, progress: float) -> None:
        """Update the key encoder and enqueue the keys."""
        super().after_step(targets, progress)
        self.queue.put(targets.keys)
        self.dense_queue.put(targets.pooled)


def _projected_grid(encoder: Encoder, features: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) through the dense projector to (N, D, H, W)."""
    assert encoder.dense_projector is not None
    count, _, height, width = features.shape
    places = features.permute(0, 2, 3, 1).flatten(0, 2)
    projected = encoder.dense_projector.project(places, height * width)
    return projected.unflatten(0, (count, height, width)).permute(0, 3, 1, 2)
