"""MoCo v2: contrast with a queue of keys from a momentum encoder.

Source: He et al., "Momentum contrast for unsupervised visual representation learning" (CVPR 2020);
Chen et al., "Improved baselines with momentum contrastive learning" (2020); for the supernet DATA
(CVPR 2022), section 3.2. DATA's released code encodes the keys, moves the key encoder and fills
the queue once per subnet; here each happens once per step, as in the paper (`faithful_step` does
it as the code does).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edgesearch.pretrain.key_queue import KeyQueue
from edgesearch.pretrain.method import Encode, MomentumMethod, SubnetLoss, Views, at_once
from edgesearch.training.precision import in_full_precision


@in_full_precision
def info_nce(
    queries: torch.Tensor, keys: torch.Tensor, queue: torch.Tensor, temperature: float
) -> torch.Tensor:
    """InfoNCE: cross-entropy of each query's key against the keys in the queue (equation 1).

    Args:
        queries: (N, D), of length 1.
        keys: (N, D), of length 1; the positives.
        queue: (D, K), columns of length 1; the negatives.
        temperature: T.

    Returns:
        Mean over the batch, a scalar.
    """
    positive = (queries * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, queries @ queue], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(queries), dtype=torch.long))


class MoCoV2(MomentumMethod):
    """Query encoder, key encoder and queue; options are documented in `PretrainSettings`."""

    def build(self, dim: int, *, queue_size: int, temperature: float) -> None:
        """See `Method`."""
        self.temperature = temperature
        self.queue = KeyQueue(dim, queue_size)

    @torch.no_grad()
    def targets(self, views: Views, encode: Encode = at_once) -> torch.Tensor:
        """The keys of the second views, (N, D)."""
        return encode(self.key, views[1])

    def loss(self, views: Views, targets: torch.Tensor) -> SubnetLoss:
        """The loss of the active architecture on the first views."""
        feature_map, queries = self.query.encoded(views[0])
        loss = info_nce(queries, targets, self.queue.keys, self.temperature)
        return SubnetLoss(loss, queries, feature_map)

    def after_step(self, targets: torch.Tensor, progress: float) -> None:
        """Update the key encoder and enqueue the keys."""
        super().after_step(targets, progress)
        self.queue.put(targets)
