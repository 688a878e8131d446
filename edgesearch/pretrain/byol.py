"""BYOL: predict the embedding that a slowly moving encoder gives of another view.

Source: Grill et al., "Bootstrap your own latent: a new approach to self-supervised learning"
(NeurIPS 2020, arXiv 2006.07733), section 3 and appendix B.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch
from torch import nn

from edgesearch.pretrain.encoder import move_towards, new_encoder
from edgesearch.pretrain.method import Encode, SubnetLoss, Views, at_once
from edgesearch.pretrain.precision import in_full_precision
from edgesearch.pretrain.views import Augmentation
from edgesearch.space import Architecture, SearchSpace
from edgesearch.supernet.projector import Projector

SECOND_BLUR = 0.1
"""Blur of the second views as a share of that of the first (appendix B, table 6)."""


@in_full_precision
def cosine_distance(predictions: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of vectors of length 1: 2 − 2·cos.

    Source: equation 2.

    Args:
        predictions: (N, D), of length 1.
        keys: (N, D), of length 1.

    Returns:
        Mean over the batch, a scalar.
    """
    return 2 - 2 * (predictions * keys).sum(dim=1).mean()


class BYOL(nn.Module):
    """Query encoder with a predictor behind it, and key encoder.

    The predictor serves training only: the search looks at the projector's embeddings. Its input
    is as wide for all subnets; it is the projector's input that is cut.

    Args:
        space: The space of the supernet.
        ema_momentum: How much of the key encoder stays in the first step; a half cosine takes it
            to 1 in the last.
        projector_hidden_dim: Width of the projector's hidden layer.
        projector_dim: Length of an embedding.
        projector_bn: Batch normalisation in the projector.
        predictor_hidden_dim: Width of the predictor's hidden layer, which is normalised always.
        seed: Of the initial weights.
    """

    batch_is_negatives = False

    def __init__(
        self,
        space: SearchSpace,
        *,
        ema_momentum: float = 0.996,
        projector_hidden_dim: int = 4096,
        projector_dim: int = 256,
        projector_bn: bool = True,
        predictor_hidden_dim: int = 4096,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.space = space
        self.ema_momentum = ema_momentum
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.query = new_encoder(space, projector_hidden_dim, projector_dim, projector_bn)
            self.predictor = Projector(projector_dim, predictor_hidden_dim, projector_dim, True)
        self.key = copy.deepcopy(self.query).requires_grad_(False)

    def views(self, augmentation: Augmentation) -> tuple[Augmentation, Augmentation]:
        """See `Method`: the first views are blurred, the second ones seldom, but solarized.

        With a blur probability of 1 and a solarize probability of 0.2 these are the paper's.
        """
        second_blur = SECOND_BLUR * augmentation.blur_probability
        return (
            replace(augmentation, solarize_probability=0.0),
            replace(augmentation, blur_probability=second_blur),
        )

    def activate(self, architecture: Architecture) -> None:
        """See `Method`; the key encoder stays the largest."""
        self.query.supernet.activate(architecture)

    @torch.no_grad()
    def targets(self, views: Views, encode: Encode = at_once) -> tuple[torch.Tensor, torch.Tensor]:
        """The embeddings of first and second views by the key encoder, (N, D) each."""
        first, second = (encode(self.key, view, shuffled=False) for view in views)
        return first, second

    def loss(self, views: Views, targets: tuple[torch.Tensor, torch.Tensor]) -> SubnetLoss:
        """The sum over both directions, each view predicting the key of the other."""
        total = targets[0].new_zeros(())
        embeddings = []
        for images, keys in zip(views, reversed(targets), strict=True):
            features = self.query.supernet(self.query.resized(images))
            projected = self.query.projector.project(features)
            total = total + cosine_distance(self.predictor(projected), keys)
            embeddings.append(projected)
        return SubnetLoss(total, nn.functional.normalize(embeddings[0], dim=1))

    def after_step(self, targets: tuple[torch.Tensor, torch.Tensor], progress: float) -> None:
        """Move the key encoder towards the query encoder."""
        move_towards(self.key, self.query, self.momentum_at(progress))

    def momentum_at(self, progress: float) -> float:
        """How much of the key encoder stays after this share of the training (section 3.2)."""
        return 1 - (1 - self.ema_momentum) * (math.cos(math.pi * progress) + 1) / 2
