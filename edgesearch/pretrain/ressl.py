"""ReSSL: be as close to a queue of other images as a slowly moving encoder is.

Source: Zheng et al., "ReSSL: relational self-supervised learning with weak augmentation" (NeurIPS
2021, arXiv 2107.09282).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from edgesearch.pretrain.encoder import move_towards, new_encoder
from edgesearch.pretrain.key_queue import KeyQueue
from edgesearch.pretrain.method import Encode, SubnetLoss, Views, at_once
from edgesearch.pretrain.precision import in_full_precision
from edgesearch.pretrain.views import Augmentation
from edgesearch.space import Architecture, SearchSpace


@in_full_precision
def relation(embeddings: torch.Tensor, queue: torch.Tensor, temperature: float) -> torch.Tensor:
    """How close each embedding is to each key of a queue, as logarithms of shares.

    Source: equations 4 and 5.

    Args:
        embeddings: (N, D), of length 1.
        queue: (D, K), columns of length 1.
        temperature: T.

    Returns:
        (N, K); the exponentials of each row have the sum 1.
    """
    return (embeddings @ queue / temperature).log_softmax(dim=1)


@in_full_precision
def relation_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the student's relation under the teacher's.

    Source: equation 6.

    Args:
        student: (N, K) logarithms, as `relation` gives them.
        teacher: (N, K) logarithms.

    Returns:
        Mean over the batch, a scalar.
    """
    return -(teacher.exp() * student).sum(dim=1).mean()


class TeacherKeys(NamedTuple):
    """What the teacher sees in a batch.

    Attributes:
        keys: (N, D), of length 1.
        relation: (N, K), as `relation` gives it.
    """

    keys: torch.Tensor
    relation: torch.Tensor


class ReSSL(nn.Module):
    """Student and teacher (query and key encoder), and a queue.

    Args:
        space: The space of the supernet.
        queue_size: Keys kept, a multiple of the batch size.
        temperature: Of the student's softmax.
        teacher_temperature: Of the teacher's, lower: its relation is the sharper one.
        ema_momentum: How much of the key encoder stays in each step.
        projector_hidden_dim: Width of the projector's hidden layer.
        projector_dim: Length of an embedding.
        projector_bn: Batch normalisation in the projector.
        seed: Of the initial weights and the initial queue.
    """

    batch_is_negatives = False

    def __init__(
        self,
        space: SearchSpace,
        *,
        queue_size: int = 131072,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        ema_momentum: float = 0.999,
        projector_hidden_dim: int = 4096,
        projector_dim: int = 512,
        projector_bn: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.space = space
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.ema_momentum = ema_momentum
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.query = new_encoder(space, projector_hidden_dim, projector_dim, projector_bn)
            self.queue = KeyQueue(projector_dim, queue_size, negatives=False)
        self.key = copy.deepcopy(self.query).requires_grad_(False)

    def views(self, augmentation: Augmentation) -> tuple[Augmentation, Augmentation]:
        """See `Method`: the student's are as asked for, the teacher's cropped and mirrored only."""
        weak = replace(
            augmentation,
            jitter_probability=0.0,
            grayscale_probability=0.0,
            blur_probability=0.0,
            solarize_probability=0.0,
        )
        return augmentation, weak

    def activate(self, architecture: Architecture) -> None:
        """See `Method`; the key encoder stays the largest."""
        self.query.supernet.activate(architecture)

    @torch.no_grad()
    def targets(self, views: Views, encode: Encode = at_once) -> TeacherKeys:
        """Keys and relation of the second, weak views."""
        keys = encode(self.key, views[1])
        return TeacherKeys(keys, relation(keys, self.queue.keys, self.teacher_temperature))

    def loss(self, views: Views, targets: TeacherKeys) -> SubnetLoss:
        """The loss of the active architecture on the first, strong views."""
        embeddings = self.query(self.query.resized(views[0]))
        student = relation(embeddings, self.queue.keys, self.temperature)
        return SubnetLoss(relation_loss(student, targets.relation), embeddings)

    def after_step(self, targets: TeacherKeys, progress: float) -> None:
        """Move the key encoder towards the query encoder and put the keys into the queue."""
        move_towards(self.key, self.query, self.ema_momentum)
        self.queue.put(targets.keys)
