"""DenseCL: MoCo v2's contrast for whole images, and once more for each place in them.

Source: Wang et al., "Dense contrastive learning for self-supervised visual pre-training" (CVPR
2021, arXiv 2011.09157), section 3.

Which place of the second view shows what a place of the first shows is found by the features of the
backbone, as in the paper. There, the query encoder sees the first view and the key encoder the
second; in a supernet the features of the two have different lengths, and cannot be compared. So the
key encoder, which is always the largest network, sees both views: the places are found once a step,
by the best features at hand, and are the same for all subnets. It costs one more pass of it. (To
compare the projected features would cost none, but the paper found them to match worse.) A subnet
of lower resolution has a smaller grid, which is enlarged to that of the keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from edgesearch.pretrain.encoder import Encoder
from edgesearch.pretrain.key_queue import KeyQueue
from edgesearch.pretrain.method import Encode, MomentumMethod, SubnetLoss, Views, at_once
from edgesearch.pretrain.moco_v2 import info_nce
from edgesearch.pretrain.precision import in_full_precision


@in_full_precision
def best_match(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """For each place of one map the place of the other whose features are most alike.

    Source: equation 3.

    Args:
        first: (N, C, H, W).
        second: (N, C, H', W').

    Returns:
        (N, H·W) numbers of places, in 0 … H'·W' − 1.
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
    """`info_nce` for each place, whose key is that of the matching place.

    Source: equation 2.

    Args:
        queries: (N, D, S), each place of length 1.
        keys: (N, D, S'), each place of length 1.
        match: (N, S) numbers of the matching places among the S'.
        queue: (D, K), columns of length 1; the negatives.
        temperature: T.

    Returns:
        Mean over batch and places, a scalar.
    """
    positives = keys.gather(2, match[:, None].expand_as(queries))
    flat_queries, flat_keys = (x.transpose(1, 2).flatten(0, 1) for x in (queries, positives))
    return info_nce(flat_queries, flat_keys, queue, temperature)


class DenseTargets(NamedTuple):
    """What the key encoder sees in a batch.

    Attributes:
        keys: (N, D), of length 1, of the second views.
        grid: (N, D, H, W) of the second views, each place of length 1.
        pooled: (N, D), of length 1: the means of the grids before they got length 1.
        match: (N, H·W): the place of the second view for each place of the first.
    """

    keys: torch.Tensor
    grid: torch.Tensor
    pooled: torch.Tensor
    match: torch.Tensor


class DenseCL(MomentumMethod):
    """Query encoder, key encoder, each with a second projector for places, and two queues.

    The projector for places is two 1×1 convolutions in the paper: the same as a `Projector` that
    is applied to each place, its input cut to the subnet's width.
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
        """Keys of the second views, and which of their places show what those of the first do."""
        targets: DenseTargets = encode(self._encoded, *views)
        return targets

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
        queries = self.query.projector(features.mean(dim=(2, 3)))
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
        return SubnetLoss((1 - self.dense_weight) * whole + self.dense_weight * dense, queries)

    def after_step(self, targets: DenseTargets, progress: float) -> None:
        """Move the key encoder and put the keys into the queues."""
        super().after_step(targets, progress)
        self.queue.put(targets.keys)
        self.dense_queue.put(targets.pooled)


def _projected_grid(encoder: Encoder, features: torch.Tensor) -> torch.Tensor:
    """Features (N, C, H, W) through the projector for places, to (N, D, H, W)."""
    assert encoder.dense_projector is not None
    count, _, height, width = features.shape
    places = features.permute(0, 2, 3, 1).flatten(0, 2)
    projected = encoder.dense_projector.project(places, height * width)
    return projected.unflatten(0, (count, height, width)).permute(0, 3, 1, 2)
