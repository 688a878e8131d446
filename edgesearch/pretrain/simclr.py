"""SimCLR: tell the other view of an image from the views of all other images of the batch.

Source: Chen et al., "A simple framework for contrastive learning of visual representations" (ICML
2020, arXiv 2002.05709).

There is no key encoder and nothing to remember: each subnet is contrasted with itself. The search
compares subnets with the largest network, as trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.pretrain.encoder import new_encoder
from edgesearch.pretrain.method import Encode, SubnetLoss, Views, at_once
from edgesearch.pretrain.precision import in_full_precision
from edgesearch.pretrain.views import Augmentation
from edgesearch.processes.distributed import gather_rows
from edgesearch.space import Architecture, SearchSpace


@in_full_precision
def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """Normalised, temperature-scaled cross-entropy with the batch as negatives.

    Source: equation 1.

    Args:
        first: (N, D), of length 1.
        second: (N, D), of length 1; row i is of the same image as row i of `first`.
        temperature: T.

    Returns:
        Mean over all 2 N views, a scalar.
    """
    count = len(first)
    both = torch.cat([first, second])
    logits = both @ both.T / temperature
    itself = torch.eye(2 * count, dtype=torch.bool, device=logits.device)
    other = torch.arange(2 * count, device=logits.device).roll(count)
    return F.cross_entropy(logits.masked_fill(itself, -torch.inf), other)


class SimCLR(nn.Module):
    """One encoder.

    Args:
        space: The space of the supernet.
        temperature: Of the softmax.
        projector_hidden_dim: Width of the projector's hidden layer.
        projector_dim: Length of an embedding.
        projector_bn: Batch normalisation in the projector.
        seed: Of the initial weights.
    """

    key = None
    batch_is_negatives = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        temperature: float = 0.1,
        projector_hidden_dim: int = 2048,
        projector_dim: int = 128,
        projector_bn: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.space = space
        self.temperature = temperature
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.query = new_encoder(space, projector_hidden_dim, projector_dim, projector_bn)

    def views(self, augmentation: Augmentation) -> tuple[Augmentation, Augmentation]:
        """See `Method`: both views are made alike."""
        return augmentation, augmentation

    def activate(self, architecture: Architecture) -> None:
        """See `Method`."""
        self.query.supernet.activate(architecture)

    def targets(self, views: Views, encode: Encode = at_once) -> None:
        """Nothing: the negatives are in the batch, and differ from subnet to subnet."""

    def loss(self, views: Views, targets: None) -> SubnetLoss:
        """The loss of the active architecture on both views, which are one batch to it.

        It is that of the global batch, the same in all processes. Where normalisations go by groups
        of images (`BatchGroups`), a group holds one view of each; else both views of all.
        """
        embeddings = self.query(self.query.resized(torch.cat(views)))
        first, second = embeddings.chunk(2)
        pairs = gather_rows(torch.stack([first, second], dim=1))
        loss = nt_xent(pairs[:, 0], pairs[:, 1], self.temperature)
        return SubnetLoss(loss, first)

    def after_step(self, targets: None, progress: float) -> None:
        """Nothing: nothing is remembered."""
