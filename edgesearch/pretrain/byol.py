"""BYOL: predict the momentum encoder's embedding of another view.

Source: Grill et al., "Bootstrap your own latent: a new approach to self-supervised learning"
(NeurIPS 2020, arXiv 2006.07733), section 3 and appendix B.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from edgesearch.pretrain.method import Encode, MomentumMethod, SubnetLoss, Views, at_once
from edgesearch.supernet.projector import Projector
from edgesearch.training.precision import in_full_precision

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import AugmentationSettings


@in_full_precision
def cosine_distance(predictions: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Mean squared distance (equation 2) of rows (N, D) of length 1: 2 − 2·cos."""
    return 2 - 2 * (predictions * keys).sum(dim=1).mean()


class BYOL(MomentumMethod):
    """Query encoder with predictor, and key encoder.

    Only training uses the predictor; the search compares projector outputs, which have the same
    length for all subnets.
    """

    def build(self, dim: int, *, predictor_hidden_dim: int) -> None:
        """See `Method`; the predictor always has batch normalisation."""
        self.predictor = Projector(dim, predictor_hidden_dim, dim, True)

    def views(
        self, augmentation: AugmentationSettings
    ) -> tuple[AugmentationSettings, AugmentationSettings]:
        """See `Method`: blur mostly for the first view, solarization for the second only.

        With a blur probability of 1 and a solarize probability of 0.2 these are the paper's views.
        """
        second_blur = 0.1 * augmentation.blur_probability  # appendix B, table 6
        return (
            augmentation.model_copy(update={"solarize_probability": 0.0}),
            augmentation.model_copy(update={"blur_probability": second_blur}),
        )

    @torch.no_grad()
    def targets(self, views: Views, encode: Encode = at_once) -> tuple[torch.Tensor, torch.Tensor]:
        """The key encoder's embeddings (N, D) of both views."""
        first, second = (encode(self.key, view, shuffled=False) for view in views[:2])
        return first, second

    def loss(self, views: Views, targets: tuple[torch.Tensor, torch.Tensor]) -> SubnetLoss:
        """The sum over both directions: each view predicts the key of the other."""
        total = targets[0].new_zeros(())
        embeddings, seen = [], []
        for images, keys in zip(views[:2], reversed(targets), strict=True):
            feature_map = self.query.supernet.feature_map(self.query.resized(images))
            projected = self.query.projector.project(feature_map.mean(dim=(2, 3)))
            total = total + cosine_distance(self.predictor(projected), keys)
            embeddings.append(projected)
            seen.append(feature_map)
        return SubnetLoss(total, F.normalize(embeddings[0], dim=1), seen[0])

    def momentum_at(self, progress: float) -> float:
        """See `MomentumMethod`: rises to 1 along a half cosine (section 3.2)."""
        return 1 - (1 - self.ema_momentum) * (math.cos(math.pi * progress) + 1) / 2
