"""kNN accuracy of features."""

from __future__ import annotations

import torch
import torch.nn.functional as F


@torch.no_grad()
def knn_accuracy(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    test_labels: torch.Tensor,
    k: int = 200,
    temperature: float = 0.1,
) -> float:
    """Accuracy, in 0 … 1, of a nearest-neighbour vote; see `knn_predictions`."""
    found = knn_predictions(train_features, train_labels, test_features, k, temperature)
    return float((found == test_labels).double().mean())


@torch.no_grad()
def knn_predictions(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    k: int = 200,
    temperature: float = 0.1,
) -> torch.Tensor:
    """Classes (M,) int64 by a weighted nearest-neighbour vote over cosine similarities.

    Each of the k nearest training images votes for its class with weight exp(cosine / T).

    Source: Wu et al., "Unsupervised feature learning via non-parametric instance discrimination"
    (CVPR 2018), section 3.4.

    Args:
        train_features: (N, D).
        train_labels: (N,) int64.
        test_features: (M, D).
        k: Number of neighbours, at most N are used.
        temperature: T.
    """
    train, test = F.normalize(train_features, dim=1), F.normalize(test_features, dim=1)
    classes = int(train_labels.max()) + 1
    found = []
    for features in test.split(1024):
        cosine, nearest = (features @ train.T).topk(min(k, len(train)), dim=1)
        # Relative to the nearest, which changes no vote and avoids overflow at low temperatures.
        weights = ((cosine - cosine[:, :1]) / temperature).exp()
        votes = cosine.new_zeros(len(features), classes)
        votes.scatter_add_(1, train_labels[nearest], weights)
        found.append(votes.argmax(dim=1))
    return torch.cat(found)
