"""ReSSL: match the momentum encoder's similarities to a queue of other images.

Source: Zheng et al., "ReSSL: relational self-supervised learning with weak augmentation" (NeurIPS
2021, arXiv 2107.09282).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from edgesearch.pretrain.key_queue import KeyQueue
from edgesearch.pretrain.method import Encode, MomentumMethod, SubnetLoss, Views, at_once
from edgesearch.training.precision import in_full_precision

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import AugmentationSettings


@in_full_precision
def relation(embeddings: torch.Tensor, queue: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-softmax (N, K) of the similarities to a queue (equations 4 and 5).

    Args:
        embeddings: (N, D), of length 1.
        queue: (D, K), columns of length 1.
        temperature: T.
    """
    return (embeddings @ queue / temperature).log_softmax(dim=1)


@in_full_precision
def relation_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy (equation 6) of log-probabilities (N, K) of student and teacher."""
    return -(teacher.exp() * student).sum(dim=1).mean()


class TeacherKeys(NamedTuple):
    """The teacher's keys (N, D), of length 1, and their `relation` (N, K)."""

    keys: torch.Tensor
    relation: torch.Tensor


class ReSSL(MomentumMethod):
    """Student and teacher (query and key encoder), and a queue.

    The teacher has the lower temperature, so its relation is sharper.
    """

    def build(
        self, dim: int, *, queue_size: int, temperature: float, teacher_temperature: float
    ) -> None:
        """See `Method`."""
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.queue = KeyQueue(dim, queue_size, negatives=False)

    def views(
        self, augmentation: AugmentationSettings
    ) -> tuple[AugmentationSettings, AugmentationSettings]:
        """See `Method`: full augmentation for the student, only crop and flip for the teacher."""
        weak = {
            "jitter": augmentation.jitter.model_copy(update={"probability": 0.0}),
            "grayscale_probability": 0.0,
            "blur_probability": 0.0,
            "solarize_probability": 0.0,
        }
        return augmentation, augmentation.model_copy(update=weak)

    @torch.no_grad()
    def targets(self, views: Views, encode: Encode = at_once) -> TeacherKeys:
        """Keys and relation of the second, weak views."""
        keys = encode(self.key, views[1])
        return TeacherKeys(keys, relation(keys, self.queue.keys, self.teacher_temperature))

    def loss(self, views: Views, targets: TeacherKeys) -> SubnetLoss:
        """The loss of the active architecture on the first, strong views."""
        feature_map, embeddings = self.query.encoded(views[0])
        student = relation(embeddings, self.queue.keys, self.temperature)
        return SubnetLoss(relation_loss(student, targets.relation), embeddings, feature_map)

    def after_step(self, targets: TeacherKeys, progress: float) -> None:
        """Update the key encoder and enqueue the keys."""
        super().after_step(targets, progress)
        self.queue.put(targets.keys)
