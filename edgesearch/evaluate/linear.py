"""A linear classifier on top of features."""

from __future__ import annotations

import torch
from torch import nn

from edgesearch.errors import DataError


def fit_linear(features: torch.Tensor, labels: torch.Tensor, classes: int) -> nn.Linear:
    """Train a classifier by logistic regression on standardised features.

    Args:
        features: (N, D).
        labels: (N,) int64.
        classes: Number of classes; one that does not occur gets a logit that never wins.

    Returns:
        A layer (N, D) to logits (N, classes), the standardisation folded in.

    Raises:
        DataError: Fewer than two classes occur.
    """
    if len(labels.unique()) < 2:
        raise DataError(
            "images of two classes or more, to train a linear classifier",
            f"images of {len(labels.unique())} class(es) that can be read",
            "Add class folders, or set export.output=features.",
        )
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.numpy())
    standardised = scaler.transform(features.numpy())
    model = LogisticRegression(max_iter=1000).fit(standardised, labels.numpy())
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64)
    bias = torch.full((classes,), -1e4, dtype=torch.float64)
    rows, intercepts = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if len(model.classes_) == 2:  # one row tells the two apart
        rows = torch.cat([-rows / 2, rows / 2])
        intercepts = torch.cat([-intercepts / 2, intercepts / 2])
    scale, mean = torch.from_numpy(scaler.scale_), torch.from_numpy(scaler.mean_)
    occurring = torch.from_numpy(model.classes_)
    weight[occurring] = rows / scale
    bias[occurring] = intercepts - (rows / scale) @ mean
    layer = nn.Linear(features.shape[1], classes)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer.requires_grad_(False)
