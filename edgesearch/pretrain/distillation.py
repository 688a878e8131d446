"""Distillation: subnets learn the embeddings, or maps, of a frozen teacher.

Source: Fang et al., "SEED: Self-supervised distillation for visual representation" (ICLR 2021), for
small networks that learn from large self-supervised ones; `lessons` has the losses.
"""

from __future__ import annotations

import torch

from edgesearch.pretrain.lessons import Lesson, paired
from edgesearch.pretrain.method import Encode, Method, SubnetLoss, Views, at_once


class Distillation(Method):
    """One encoder whose head leads to the teacher's embeddings.

    Instead of a second view, the loader gives the teacher's embeddings (N, D) of the first, or maps
    (N, D, h, w).
    """

    def build(self, dim: int) -> None:
        """See `Method`; the lesson is the cosine until `learn` gives another."""
        self.lesson = Lesson(dim)

    def learn(self, lesson: Lesson) -> None:
        """Choose the loss."""
        self.lesson = lesson

    def targets(self, views: Views, encode: Encode = at_once) -> torch.Tensor:
        """The teacher's embeddings or maps."""
        return views[1]

    def loss(self, views: Views, targets: torch.Tensor) -> SubnetLoss:
        """The loss of the active architecture."""
        feature_map, embeddings = self.query.encoded(views[0])
        own, taught = embeddings, targets
        if targets.ndim == 4:
            features, taught = paired(feature_map, targets)
            own = self.query.projector(features, len(taught) // len(targets))
        return SubnetLoss(self.lesson(own, taught), embeddings, feature_map)

    def after_step(self, targets: torch.Tensor, progress: float) -> None:
        """Enqueue the teacher's embeddings."""
        self.lesson.after_step(targets)
