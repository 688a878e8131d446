"""The projector: one or two linear layers from features to embeddings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.supernet.dynamic_ops import DynamicLinear, GroupedBatchNorm1d


class Projector(nn.Module):
    """Two linear layers; the first uses as many leading inputs as the features have.

    Source: the MLP head of SimCLR and MoCo v2; slicing as in DATA (CVPR 2022).

    Args:
        feature_dim: Length of the features.
        hidden_dim: Width of the hidden layer; None for a single linear layer.
        out_dim: Length of an embedding.
        bn: Batch normalisation of the hidden layer.
    """

    def __init__(self, feature_dim: int, hidden_dim: int | None, out_dim: int, bn: bool) -> None:
        super().__init__()
        self.hidden = hidden_dim is not None
        if hidden_dim is None:
            self.fc2: nn.Linear = DynamicLinear(feature_dim, out_dim)
            return
        self.fc1 = DynamicLinear(feature_dim, hidden_dim, bias=not bn)
        self.bn1: nn.Module = GroupedBatchNorm1d(hidden_dim) if bn else nn.Identity()
        self.fc2 = nn.Linear(hidden_dim, out_dim)

    @classmethod
    def like(cls, state: Mapping[str, torch.Tensor], feature_dim: int) -> Projector:
        """A projector of the form of a state, for features of another length."""
        out_dim, hidden_dim = state["fc2.weight"].shape
        hidden = hidden_dim if "fc1.weight" in state else None
        return cls(feature_dim, hidden, out_dim, "bn1.weight" in state)

    def forward(self, features: torch.Tensor, places: int = 1) -> torch.Tensor:
        """(N, D) to embeddings (N, out_dim) of length 1; see `project` for `places`."""
        return F.normalize(self.project(features, places), dim=1)

    def project(self, features: torch.Tensor, places: int = 1) -> torch.Tensor:
        """(N, D) to (N, out_dim), not normalised, in the dtype of the weights.

        Each image has `places` consecutive rows.
        """
        hidden = features
        if self.hidden:
            hidden = self.fc1(features)
            if isinstance(self.bn1, GroupedBatchNorm1d):
                hidden = self.bn1(hidden, places)
            hidden = F.relu(hidden)
        projected: torch.Tensor = self.fc2(hidden)
        exact = self.fc2.weight.dtype  # autocast returns bfloat16
        return projected if projected.dtype == exact else projected.to(exact)
