"""Score by a few labels: nearest neighbours among labelled training images."""

from __future__ import annotations

import torch
import torch.nn.functional as F

NEIGHBOURS = 20
TEMPERATURE = 0.1


def label_score(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Whether each image gets its class by the votes of its nearest others: 0 or 1.

    Features (N, D) and labels (N,) of the same images to (N,) float32. The vote is that of
    `edgesearch.evaluate.knn.knn_accuracy`.
    """
    unit = F.normalize(features.float(), dim=1)
    cosine = unit @ unit.T
    cosine.fill_diagonal_(-torch.inf)
    near, which = cosine.topk(min(NEIGHBOURS, len(unit) - 1), dim=1)
    weights = ((near - near[:, :1]) / TEMPERATURE).exp()
    votes = cosine.new_zeros(len(unit), int(labels.max()) + 1)
    votes.scatter_add_(1, labels[which], weights)
    return (votes.argmax(dim=1) == labels).float()
