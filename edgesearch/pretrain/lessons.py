"""What subnets learn of a teacher: losses between their embeddings and its own, and a head.

Where the teacher gives maps, each place of a subnet's map learns from the same place of the
teacher's: rows are places instead of whole images.

Source: Fang et al., "SEED: Self-supervised distillation for visual representation" (ICLR 2021),
section 3.2, for similarities to a queue, which small networks learn from large ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.pretrain.key_queue import KeyQueue
from edgesearch.supernet.projector import Projector
from edgesearch.training.precision import in_full_precision

if TYPE_CHECKING:
    from edgesearch.teacher.settings import TeacherSettings


def paired(feature_map: torch.Tensor, taught: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of a subnet and what a teacher gives for the same whole images, or places.

    Maps are averaged to the coarser of their two grids: nothing is made up between places. Before a
    linear head that is the same as behind it.

    Args:
        feature_map: (N, C, H, W).
        taught: Embeddings (N, D), or maps (N, D, h, w).

    Returns:
        Rows (M, C) and rows (M, D) of length 1; M is N, or N times the number of places.
    """
    if taught.ndim == 2:
        return feature_map.mean(dim=(2, 3)), taught
    (height, width), (h, w) = feature_map.shape[2:], taught.shape[2:]
    grid = min(height, h), min(width, w)
    features, wanted = (
        F.adaptive_avg_pool2d(maps, grid).permute(0, 2, 3, 1).flatten(0, 2)
        for maps in (feature_map, taught)
    )
    return features, F.normalize(wanted, dim=1)


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

    def forward(self, feature_map: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """The weighted loss, a scalar; see `paired` for the arguments."""
        features, taught = paired(feature_map, taught)
        return self.weight * self.lesson(self.head(features), taught)


PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Penalties of `fit_head`, in units of the mean variance of a feature."""


@torch.no_grad()
def fit_head(head: Projector, features: list[torch.Tensor], taught: list[torch.Tensor]) -> None:
    """Begin a head of one layer with the ridge regression of the teacher's embeddings.

    A head with random weights would first change features that public weights have brought. The
    penalty is the best on the last fifth of the batches, by the cosine.

    Source: Kumar et al., "Fine-tuning can distort pretrained features and underperform
    out-of-distribution" (ICLR 2022), section 4: linear probing, then fine-tuning.

    Args:
        head: Its weights are replaced.
        features: Of batches through subnets, (M, C) each with its own C; see `paired`.
        taught: The teacher's of the same images or places, (M, D) each.
    """
    layer, held_out = head.fc2, max(1, len(features) // 5)
    x = [F.pad(each, (0, layer.in_features - each.shape[1])).double() for each in features]
    y = [each.double() for each in taught]
    best = PENALTIES[-1]
    if len(x) > held_out:
        fitted = _moments(torch.cat(x[:-held_out]), torch.cat(y[:-held_out]))
        seen, wanted = torch.cat(x[-held_out:]), torch.cat(y[-held_out:])
        found = {}
        for penalty in PENALTIES:
            weight, bias = _ridge(fitted, penalty)
            found[penalty] = float(cosine_distance(F.normalize(seen @ weight.T + bias), wanted))
        best = min(PENALTIES, key=lambda penalty: found[penalty])
    weight, bias = _ridge(_moments(torch.cat(x), torch.cat(y)), best)
    # The cosine depends on no scale, but an optimizer's steps do: they suit that of fresh weights.
    scale = float(layer.weight.norm()) / max(float(weight.norm()), 1e-12)
    layer.weight.copy_(scale * weight)
    layer.bias.copy_(scale * bias)


class _Moments(NamedTuple):
    """Means (C,) and (D,) of rows, variances (C, C) of the first and covariances (C, D)."""

    mean_x: torch.Tensor
    mean_y: torch.Tensor
    variances: torch.Tensor
    covariances: torch.Tensor


def _moments(x: torch.Tensor, y: torch.Tensor) -> _Moments:
    """Those of rows (N, C) and (N, D)."""
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    x = x - mean_x
    return _Moments(mean_x, mean_y, x.T @ x / len(x), x.T @ (y - mean_y) / len(x))


def _ridge(moments: _Moments, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (D, C) and bias (D,) that map rows (N, C) to (N, D)."""
    mean_x, mean_y, variances, covariances = moments
    variances = variances.clone()
    variances.diagonal().add_(penalty * variances.diagonal().mean().clamp(min=1e-12))
    weight = torch.linalg.solve(variances, covariances).T
    return weight, mean_y - weight @ mean_x


def make_lesson(settings: TeacherSettings, dim: int) -> Lesson:
    """The loss that a configuration names."""
    queue_size = settings.queue_size if settings.loss == "queue" else None
    return Lesson(dim, queue_size, settings.temperatures)
