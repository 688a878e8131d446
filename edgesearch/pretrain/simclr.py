"""SimCLR: contrast between the two views of an image and all other views of the batch.

Source: Chen et al., "A simple framework for contrastive learning of visual representations" (ICML
2020, arXiv 2002.05709).

There is neither key encoder nor queue; each subnet is its own teacher. The search compares subnets
with the trained largest network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edgesearch.pretrain.method import Method, SubnetLoss, Views
from edgesearch.processes.distributed import gather_rows
from edgesearch.training.precision import in_full_precision


@in_full_precision
def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent: normalised, temperature-scaled cross-entropy within the batch (equation 1).

    Args:
        first: (N, D), of length 1.
        second: (N, D), of length 1; row i shows the same image as row i of `first`.
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


class SimCLR(Method):
    """One encoder."""

    batch_is_negatives = True

    def build(self, dim: int, *, temperature: float) -> None:
        """See `Method`."""
        self.temperature = temperature

    def loss(self, views: Views, targets: None) -> SubnetLoss:
        """The loss of the active architecture on both views, encoded as one batch.

        The loss is that of the global batch, the same in all processes. A normalisation group
        (`BatchGroups`) holds one view per image; without groups, both views of all images.
        """
        maps, embeddings = self.query.encoded(torch.cat(views[:2]))
        first, second = embeddings.chunk(2)
        pairs = gather_rows(torch.stack([first, second], dim=1))
        loss = nt_xent(pairs[:, 0], pairs[:, 1], self.temperature)
        return SubnetLoss(loss, first, maps[: len(first)])
