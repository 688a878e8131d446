"""The interface of self-supervised methods, and what they share."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import nn

from edgesearch.pretrain.encoder import Encoder, move_towards
from edgesearch.pretrain.lessons import SecondLesson
from edgesearch.pretrain.recipes import RECIPES
from edgesearch.space import Architecture, SearchSpace
from edgesearch.training.randomness import seeded

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import AugmentationSettings

Views = tuple[torch.Tensor, ...]
"""Two views (N, C, R, R) of the same images; a teacher's embeddings (N, D) or maps (N, D, h, w) of
the first come last. Distillation has no second view."""


class Encode(Protocol):
    """Encodes views, either all at once or in the passes of a step."""

    def __call__(
        self, function: Callable[..., Any], *views: torch.Tensor, shuffled: bool = True
    ) -> Any:
        """The rows of `function`, which maps views (n, C, R, R) to a tensor or tuple of tensors.

        Shuffled: normalise images in other groups than the queries, so that batch statistics
        cannot identify a query's key.
        """


def at_once(function: Callable[..., Any], *views: torch.Tensor, shuffled: bool = True) -> Any:
    """Encode all views in one pass and one group."""
    return function(*views)


class SubnetLoss(NamedTuple):
    """A scalar loss; embeddings (N, dim) of length 1 and last maps (N, C, H, W) of first views."""

    value: torch.Tensor
    embeddings: torch.Tensor
    feature_map: torch.Tensor


class Method(nn.Module):
    """A self-supervised method; its state dict is its whole state.

    A method defines `loss`; `targets` and `after_step` if there is more than the query encoder;
    `build` for other members; `views` if the two views are augmented differently.

    Args:
        space: The space of the supernet.
        seed: Seed of the initial weights and of `build`.
        projector_hidden_dim: Width of the projector's hidden layer; None for none.
        projector_dim: Length of an embedding.
        projector_bn: Batch normalisation in the projector.
        **options: Options of `build`.

    Attributes:
        query: The trained encoder.
        key: The search's reference, always the largest network; None for that of `query` itself.
        second_lesson: What a teacher adds to each subnet's loss; None for nothing.
        has_dense_projector: Whether the encoders have a dense projector.
        batch_is_negatives: Whether the loss contrasts images of a batch, so that it is not a mean
            over parts of the batch.
    """

    has_dense_projector = False
    batch_is_negatives = False

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        projector_hidden_dim: int | None,
        projector_dim: int,
        projector_bn: bool,
        **options: Any,
    ) -> None:
        super().__init__()
        self.space = space
        self.key: Encoder | None = None
        self.second_lesson: SecondLesson | None = None
        with seeded(seed):
            self.query = Encoder(
                space,
                projector_hidden_dim,
                projector_dim,
                projector_bn,
                dense=self.has_dense_projector,
            )
            self.build(projector_dim, **options)

    def build(self, dim: int, *_: Any, **options: Any) -> None:
        """Make the members besides the encoders, given the embedding length and the options."""

    def views(
        self, augmentation: AugmentationSettings
    ) -> tuple[AugmentationSettings, AugmentationSettings]:
        """Augmentations of the first and the second view, given the configured one."""
        return augmentation, augmentation

    def activate(self, architecture: Architecture) -> None:
        """Choose the architecture that `loss` trains; a key encoder stays the largest."""
        self.query.supernet.activate(architecture)

    def targets(self, views: Views, encode: Encode = at_once) -> Any:
        """Targets that all subnets of a step share: None, or tensors with one row per image.

        `encode` runs the key encoder in the passes and groups of the step.
        """
        return None

    def loss(self, views: Views, targets: Any) -> SubnetLoss:
        """The loss of the active architecture."""
        raise NotImplementedError

    def after_step(self, targets: Any, progress: float) -> None:
        """Update the method's other state once after each optimizer step.

        `progress` is the completed share of the training before this step, in [0, 1).
        """


class MomentumMethod(Method):
    """A method whose key encoder is an exponential moving average of the query encoder."""

    key: Encoder

    def __init__(self, space: SearchSpace, *, ema_momentum: float, **options: Any) -> None:
        super().__init__(space, **options)
        self.ema_momentum = ema_momentum
        self.key = copy.deepcopy(self.query).requires_grad_(False)

    def momentum_at(self, progress: float) -> float:
        """Momentum of the average at this progress of the training."""
        return self.ema_momentum

    def move_key_encoder(self, progress: float = 0.0) -> None:
        """Update the key encoder."""
        move_towards(self.key, self.query, self.momentum_at(progress))

    def after_step(self, targets: Any, progress: float) -> None:
        """Update the key encoder."""
        self.move_key_encoder(progress)


def make_method(name: str, space: SearchSpace, seed: int = 0, **options: Any) -> Method:
    """The method of a key of `RECIPES` with fresh weights; options default to its paper's."""
    recipe = RECIPES[name]
    module, _, class_name = recipe.implementation.partition(":")
    method_class = getattr(importlib.import_module(module), class_name)
    return method_class(space, seed=seed, **{**recipe.options, **options})
