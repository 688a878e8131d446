"""What subnets learn of a teacher: losses between their embeddings and its own, and a head.

Source: Fang et al., "SEED: Self-supervised distillation for visual representation" (ICLR 2021),
section 3.2, for similarities to a queue, which small networks learn from large ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from edgesearch.pretrain.key_queue import KeyQueue
from edgesearch.supernet.projector import Projector
from edgesearch.training.precision import in_full_precision

if TYPE_CHECKING:
    from edgesearch.teacher.settings import TeacherSettings


@in_full_precision
def cosine_distance(embeddings: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cosine over rows (N, D) of length 1, a scalar."""
    return (1 - (embeddings * taught).sum(dim=1)).mean()


@in_full_precision
def similarity_loss(
    embeddings: torch.Tensor,
    taught: torch.Tensor,
    queue: torch.Tensor,
    temperatures: tuple[float, float],
) -> torch.Tensor:
    """Cross-entropy between two distributions over a queue and the image itself (equation 4).

    Each is the softmax of similarities to the teacher's embeddings of other images and to that of
    the same image: those of the teacher's embedding, and those of the subnet's.

    Args:
        embeddings: (N, D), of length 1.
        taught: (N, D), of length 1; the teacher's.
        queue: (D, K), columns of length 1; the teacher's of other images.
        temperatures: Of the teacher and of the subnet.

    Returns:
        Mean over the batch, a scalar.
    """
    logits = [
        torch.cat([(each * taught).sum(dim=1, keepdim=True), each @ queue], dim=1) / temperature
        for each, temperature in zip((taught, embeddings), temperatures, strict=True)
    ]
    return -(logits[0].softmax(dim=1) * logits[1].log_softmax(dim=1)).sum(dim=1).mean()


class Lesson(nn.Module):
    """A loss of subnets' embeddings by the teacher's; see `TeacherSettings.loss`.

    Args:
        dim: Length of an embedding.
        queue_size: Embeddings of the teacher in a queue; None for the cosine alone.
        temperatures: Of the teacher and of the subnets, with a queue.
    """

    def __init__(
        self,
        dim: int,
        queue_size: int | None = None,
        temperatures: tuple[float, float] = (0.01, 0.2),
    ) -> None:
        super().__init__()
        self.queue = None if queue_size is None else KeyQueue(dim, queue_size, negatives=False)
        self.temperatures = temperatures

    def forward(self, embeddings: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """A scalar from rows (N, D) of length 1."""
        if self.queue is None:
            return cosine_distance(embeddings, taught)
        return similarity_loss(embeddings, taught, self.queue.keys, self.temperatures)

    def after_step(self, taught: torch.Tensor) -> None:
        """Enqueue the teacher's embeddings of this process's images."""
        if self.queue is not None:
            self.queue.put(taught)


class SecondLesson(nn.Module):
    """A teacher beside a method's own loss: a linear head that all subnets share, and a weight.

    Args:
        feature_dim: Length of the largest network's features.
        dim: Length of the teacher's embeddings.
        lesson: The loss.
        weight: Its weight.
    """

    def __init__(self, feature_dim: int, dim: int, lesson: Lesson, weight: float) -> None:
        super().__init__()
        self.head = Projector(feature_dim, None, dim, False)
        self.lesson, self.weight = lesson, weight

    def forward(self, features: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """The weighted loss of features (N, C) by the teacher's embeddings (N, D), a scalar."""
        return self.weight * self.lesson(self.head(features), taught)


def make_lesson(settings: TeacherSettings, dim: int) -> Lesson:
    """The loss that a configuration names."""
    queue_size = settings.queue_size if settings.loss == "queue" else None
    return Lesson(dim, queue_size, settings.temperatures)
