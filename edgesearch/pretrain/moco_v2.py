"""MoCo v2: contrast against a queue of keys from a slowly moving encoder.

Source: He et al., "Momentum contrast for unsupervised visual representation learning" (CVPR 2020);
Chen et al., "Improved baselines with momentum contrastive learning" (2020); for the supernet DATA
(CVPR 2022), section 3.2. The released DATA code encodes the keys, moves the key encoder and fills
the queue once for each subnet; here each happens once a step, as the paper describes
(`faithful_step` does it as the code does).
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.pretrain.encoder import move_towards, new_encoder
from edgesearch.pretrain.key_queue import KeyQueue
from edgesearch.pretrain.method import Encode, SubnetLoss, Views, at_once
from edgesearch.pretrain.precision import in_full_precision
from edgesearch.pretrain.views import Augmentation
from edgesearch.space import Architecture, SearchSpace


@in_full_precision
def info_nce(
    queries: torch.Tensor, keys: torch.Tensor, queue: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Cross-entropy of telling each query's key from the keys in the queue.

    Source: CVPR 2020 paper, equation 1.

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


class MoCoV2(nn.Module):
    """Query encoder, key encoder and queue.

    Args:
        space: The space of the supernet.
        queue_size: Keys kept, a multiple of the batch size.
        temperature: Of the softmax.
        ema_momentum: How much of the key encoder stays in each step.
        projector_hidden_dim: Width of the projector's hidden layer.
        projector_dim: Length of an embedding.
        projector_bn: Batch normalisation in the projector.
        seed: Of the initial weights and the initial queue.
    """

    batch_is_negatives = False

    def __init__(
        self,
        space: SearchSpace,
        *,
        queue_size: int = 65536,
        temperature: float = 0.2,
        ema_momentum: float = 0.999,
        projector_hidden_dim: int = 2048,
        projector_dim: int = 128,
        projector_bn: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.space = space
        self.temperature = temperature
        self.ema_momentum = ema_momentum
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.query = new_encoder(space, projector_hidden_dim, projector_dim, projector_bn)
            self.queue = KeyQueue(projector_dim, queue_size)
        self.key = copy.deepcopy(self.query).requires_grad_(False)

    def views(self, augmentation: Augmentation) -> tuple[Augmentation, Augmentation]:
        """See `Method`: both views are made alike."""
        return augmentation, augmentation

    def activate(self, architecture: Architecture) -> None:
        """See `Method`; the key encoder stays the largest."""
        self.query.supernet.activate(architecture)

    @torch.no_grad()
    def targets(self, views: Views, encode: Encode = at_once) -> torch.Tensor:
        """The keys of the second views, (N, D)."""
        keys: torch.Tensor = encode(self.key, views[1])
        return keys

    def loss(self, views: Views, targets: torch.Tensor) -> SubnetLoss:
        """The loss of the active architecture on the first views."""
        queries = self.query(self.query.resized(views[0]))
        return SubnetLoss(info_nce(queries, targets, self.queue.keys, self.temperature), queries)

    def after_step(self, targets: torch.Tensor, progress: float) -> None:
        """Move the key encoder towards the query encoder and put the keys into the queue."""
        self.move_key_encoder()
        self.queue.put(targets)

    def move_key_encoder(self) -> None:
        """Move the key encoder towards the query encoder by its share."""
        move_towards(self.key, self.query, self.ema_momentum)
