"""The projector: an MLP from features to embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.supernet.dynamic_ops import DynamicLinear, GroupedBatchNorm1d


class Projector(nn.Module):
    """Two linear layers; the first uses as many leading inputs as the features have.

    Source: the MLP head of SimCLR and MoCo v2; slicing as in DATA (CVPR 2022).
    """

    def __init__(self, feature_dim: int, hidden_dim: int, out_dim: int, bn: bool) -> None:
        super().__init__()
        self.fc1 = DynamicLinear(feature_dim, hidden_dim, bias=not bn)
        self.bn1: nn.Module = GroupedBatchNorm1d(hidden_dim) if bn else nn.Identity()
        self.fc2 = nn.Linear(hidden_dim, out_dim)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, D) to embeddings (N, out_dim) of length 1."""
        return F.normalize(self.project(features), dim=1)

    def project(self, features: torch.Tensor, places: int = 1) -> torch.Tensor:
        """(N, D) to (N, out_dim), not normalised, in the dtype of the weights.

        Each image has `places` consecutive rows.
        """
        hidden = self.fc1(features)
        if isinstance(self.bn1, GroupedBatchNorm1d):
            hidden = self.bn1(hidden, places)
        projected: torch.Tensor = self.fc2(F.relu(hidden))
        exact = self.fc2.weight.dtype  # autocast returns bfloat16
        return projected if projected.dtype == exact else projected.to(exact)
