"""Distillation: subnets learn the embeddings of a frozen teacher.

Source: Fang et al., "SEED: Self-supervised distillation for visual representation" (ICLR 2021), for
small networks that learn from large self-supervised ones; the loss is the cosine distance to the
teacher's embedding of the same crop, through a head that all subnets share.
"""

from __future__ import annotations

import torch

from edgesearch.pretrain.method import Method, SubnetLoss, Views
from edgesearch.training.precision import in_full_precision


@in_full_precision
def cosine_distance(embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cosine over rows (N, D) of length 1, a scalar."""
    return (1 - (embeddings * targets).sum(dim=1)).mean()


class Distillation(Method):
    """One encoder whose head leads to the teacher's embeddings.

    Instead of a second view, the loader gives the teacher's embeddings (N, D) of the first.
    """

    def loss(self, views: Views, targets: None) -> SubnetLoss:
        """The loss of the active architecture."""
        images, taught = views
        embeddings = self.query(self.query.resized(images))
        return SubnetLoss(cosine_distance(embeddings, taught), embeddings)
