"""MoCo v2: contrast against a queue of keys from a slowly moving encoder.

Source: He et al., "Momentum contrast for unsupervised visual representation learning" (CVPR 2020);
Chen et al., "Improved baselines with momentum contrastive learning" (2020); for the supernet DATA
(CVPR 2022), section 3.2. The released DATA code encodes the keys, moves the key encoder and fills
the queue once for each subnet; here each happens once a step, as the paper describes.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.errors import TrainingError
from edgesearch.space import Architecture, SearchSpace
from edgesearch.supernet import Projector, Supernet


class Encoder(nn.Module):
    """A supernet and the projector behind it."""

    def __init__(self, supernet: Supernet, projector: Projector) -> None:
        super().__init__()
        self.supernet = supernet
        self.projector = projector

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to embeddings (N, dim) of the active architecture."""
        embeddings: torch.Tensor = self.projector(self.supernet(images))
        return embeddings


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

    queue: torch.Tensor
    queue_position: torch.Tensor

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
            supernet = Supernet(space)
            projector = Projector(
                supernet.feature_dim, projector_hidden_dim, projector_dim, projector_bn
            )
            queue = F.normalize(torch.randn(projector_dim, queue_size), dim=0)
        self.query = Encoder(supernet, projector)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", queue)
        self.register_buffer("queue_position", torch.zeros((), dtype=torch.long))

    def activate(self, architecture: Architecture) -> None:
        """Make an architecture the one that `loss` trains; the key encoder stays the largest."""
        self.query.supernet.activate(architecture)

    @torch.no_grad()
    def targets(self, views: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """What all subnets of a step are compared with: the keys of the second views, (N, D)."""
        keys: torch.Tensor = self.key(views[1])
        return keys

    def loss(self, views: tuple[torch.Tensor, torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        """The loss of the active architecture on the first views, a scalar."""
        images = views[0]
        resolution = self.query.supernet.active.resolution
        if images.shape[-1] != resolution:
            images = F.interpolate(
                images, (resolution, resolution), mode="bilinear", antialias=True
            )
        return info_nce(self.query(images), targets, self.queue, self.temperature)

    @torch.no_grad()
    def after_step(self, targets: torch.Tensor) -> None:
        """Move the key encoder towards the query encoder and put the keys into the queue.

        Raises:
            TrainingError: The queue does not hold a whole number of batches.
        """
        if self.queue.shape[1] % len(targets):
            raise TrainingError(
                f"a queue_size that is a multiple of the batch of {len(targets)} images",
                f"queue_size {self.queue.shape[1]}",
                "Change pretrain.queue_size or pretrain.batch_size.",
            )
        keys: list[torch.Tensor] = list(self.key.parameters())
        queries: list[torch.Tensor] = list(self.query.parameters())
        torch._foreach_lerp_(keys, queries, 1 - self.ema_momentum)
        position, count = int(self.queue_position), len(targets)
        self.queue[:, position : position + count] = targets.T
        self.queue_position.fill_((position + count) % self.queue.shape[1])
