"""The head between features and embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.supernet.dynamic_ops import DynamicLinear


class Projector(nn.Module):
    """Two linear layers, the first of which is cut to the width of the features it is given.

    Source: the MLP head of SimCLR and MoCo v2; the slicing as in DATA (CVPR 2022).
    """

    def __init__(self, feature_dim: int, hidden_dim: int, out_dim: int, bn: bool) -> None:
        super().__init__()
        self.fc1 = DynamicLinear(feature_dim, hidden_dim, bias=not bn)
        self.bn1: nn.Module = nn.BatchNorm1d(hidden_dim) if bn else nn.Identity()
        self.fc2 = nn.Linear(hidden_dim, out_dim)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, D) to embeddings (N, out_dim) of length 1."""
        return F.normalize(self.project(features), dim=1)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """(N, D) to (N, out_dim), of whatever length."""
        projected: torch.Tensor = self.fc2(F.relu(self.bn1(self.fc1(features))))
        return projected
