"""What all self-supervised methods share: encoders, and what the sandwich step asks of a method."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import nn

from edgesearch.pretrain.encoder import Encoder, move_towards, new_encoder
from edgesearch.pretrain.recipes import RECIPES
from edgesearch.space import Architecture, SearchSpace

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import AugmentationSettings

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


class Method(nn.Module):
    """A self-supervised method; its state is all that it remembers.

    A method defines `loss`; `targets` and `after_step` where there is more than the query encoder;
    `build` for what it has besides its encoders; `views` where the two views are made differently.

    Args:
        space: The space of the supernet.
        seed: Of the initial weights, and of all that `build` draws.
        projector_hidden_dim: Width of the projector's hidden layer.
        projector_dim: Length of an embedding.
        projector_bn: Batch normalisation in the projector.
        **options: Those of `build`.

    Attributes:
        space: The space of the supernet.
        query: What is trained.
        key: What the search compares subnets with, always the largest network; None if that is
            the largest network of `query` itself.
        has_dense_projector: Whether the encoders have a second projector, for places.
        batch_is_negatives: Whether the loss compares the images of a batch with each other, so that
            it is no mean over parts of the batch.
    """

    has_dense_projector = False
    batch_is_negatives = False

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        projector_hidden_dim: int,
        projector_dim: int,
        projector_bn: bool,
        **options: Any,
    ) -> None:
        super().__init__()
        self.space = space
        self.key: Encoder | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.query = new_encoder(
                space,
                projector_hidden_dim,
                projector_dim,
                projector_bn,
                dense=self.has_dense_projector,
            )
            self.build(projector_dim, **options)

    def build(self, dim: int, *_: Any, **options: Any) -> None:
        """Make what the method has besides its encoders.

        Args:
            dim: Length of an embedding.
            **options: The method's own options.
        """

    def views(
        self, augmentation: AugmentationSettings
    ) -> tuple[AugmentationSettings, AugmentationSettings]:
        """How the first and the second view are made, given what the configuration asks for."""
        return augmentation, augmentation

    def activate(self, architecture: Architecture) -> None:
        """Make an architecture the one that `loss` trains; a key encoder stays the largest."""
        self.query.supernet.activate(architecture)

    def targets(self, views: Views, encode: Encode = at_once) -> Any:
        """What all subnets of a step are compared with; computed once a step.

        Args:
            views: Those of this process.
            encode: Lets the key encoder encode views, in whatever passes and groups.

        Returns:
            Tensors of a row for each image, or None.
        """
        return None

    def loss(self, views: Views, targets: Any) -> SubnetLoss:
        """The loss of the active architecture."""
        raise NotImplementedError

    def after_step(self, targets: Any, progress: float) -> None:
        """What the method does once after the weights have changed.

        Args:
            targets: Those of the step.
            progress: Share of the training's steps that came before this one, in [0, 1).
        """


class MomentumMethod(Method):
    """A method with a key encoder: a copy of the query encoder that follows it slowly.

    Args:
        space: The space of the supernet.
        ema_momentum: Share of itself that the key encoder keeps in each step.
        **options: Those of `Method`.
    """

    key: Encoder

    def __init__(self, space: SearchSpace, *, ema_momentum: float, **options: Any) -> None:
        super().__init__(space, **options)
        self.ema_momentum = ema_momentum
        self.key = copy.deepcopy(self.query).requires_grad_(False)

    def momentum_at(self, progress: float) -> float:
        """Share of itself that the key encoder keeps after this share of the training."""
        return self.ema_momentum

    def move_key_encoder(self, progress: float = 0.0) -> None:
        """Move the key encoder towards the query encoder."""
        move_towards(self.key, self.query, self.momentum_at(progress))

    def after_step(self, targets: Any, progress: float) -> None:
        """Move the key encoder towards the query encoder."""
        self.move_key_encoder(progress)


def make_method(name: str, space: SearchSpace, seed: int = 0, **options: Any) -> Method:
    """A method with fresh weights.

    Args:
        name: Key of `RECIPES`.
        space: The space of the supernet.
        seed: Of the initial weights.
        **options: The method's own options; as in its paper where left out.
    """
    recipe = RECIPES[name]
    module, _, class_name = recipe.implementation.partition(":")
    method_class = getattr(importlib.import_module(module), class_name)
    method: Method = method_class(space, seed=seed, **{**recipe.options, **options})
    return method
