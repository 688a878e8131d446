"""What a self-supervised method is to the trainer and to the sandwich step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from edgesearch.pretrain.encoder import Encoder
from edgesearch.pretrain.views import Augmentation
from edgesearch.space import Architecture, SearchSpace

Views = tuple[torch.Tensor, torch.Tensor]
"""Two views (N, C, R, R) of the same images."""


class Encode(Protocol):
    """Lets a function encode views: all at once, or in the passes of a step."""

    def __call__(
        self, function: Callable[..., Any], *views: torch.Tensor, shuffled: bool = True
    ) -> Any:
        """The function's tensors, row by row those of the views.

        Args:
            function: From views (n, C, R, R) to a tensor of n rows, or a tuple of such.
            views: (N, C, R, R) each.
            shuffled: The images are normalised in other groups than the queries are, so that no
                query can be told from its key by the statistics of their group.
        """


def at_once(function: Callable[..., Any], *views: torch.Tensor, shuffled: bool = True) -> Any:
    """Encode all views in one pass, which is one group."""
    return function(*views)


class SubnetLoss(NamedTuple):
    """What a pass of one subnet gives.

    Attributes:
        value: The loss, a scalar with its graph.
        embeddings: (N, dim) of length 1: the projector's output for the first views.
    """

    value: torch.Tensor
    embeddings: torch.Tensor


class Method(Protocol):
    """A self-supervised method; also a `torch.nn.Module`, whose state is all that it remembers.

    Attributes:
        space: The space of the supernet.
        query: What is trained.
        key: What the search compares subnets with, always the largest network; None if that is
            the largest network of `query` itself.
        batch_is_negatives: Whether the loss compares the images of a batch with each other, so that
            it is no mean over parts of the batch.
    """

    space: SearchSpace
    query: Encoder
    batch_is_negatives: bool

    @property
    def key(self) -> Encoder | None:
        """See the class."""

    def views(self, augmentation: Augmentation) -> tuple[Augmentation, Augmentation]:
        """How the first and the second view are made, given what the configuration asks for."""

    def activate(self, architecture: Architecture) -> None:
        """Make an architecture the one that `loss` trains."""

    def targets(self, views: Views, encode: Encode = at_once) -> Any:
        """What all subnets of a step are compared with; computed once a step.

        Args:
            views: Those of this process.
            encode: Lets the key encoder encode views, in whatever passes and groups.

        Returns:
            Tensors of a row for each image, or None.
        """

    def loss(self, views: Views, targets: Any) -> SubnetLoss:
        """The loss of the active architecture."""

    def after_step(self, targets: Any, progress: float) -> None:
        """What the method does once after the weights have changed.

        Args:
            targets: Those of the step.
            progress: Share of the training's steps that came before this one, in [0, 1).
        """
