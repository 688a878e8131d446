"""The sections `evaluation` and `rank`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgesearch.settings import NO_EFFECT, Count, CountFromZero, Positive, Settings


class EvaluationSettings(Settings):
    """How accuracies of subnets are computed, in `evaluate` and at the end of `run`.

    Features are those of the backbone, its normalisation recalibrated on
    `search.calibration_images` images.

    Source: Wu et al., "Unsupervised feature learning via non-parametric instance discrimination"
    (CVPR 2018), section 3.4, for the defaults of the kNN vote.
    """

    knn_k: Count = 200
    """Neighbours that vote; all training images if there are fewer."""
    knn_temperature: Positive = 0.1
    """T of a neighbour's weight exp(cosine / T)."""
    train_images: Count = 20_000
    """Training images at most, with their labels; a seeded part where there are more."""
    test_images: Count = 5_000
    """Images held out that are classified, at most."""


class RankSettings(Settings):
    """How it is found out whether the score orders subnets as their accuracy does."""

    subnets: Annotated[int, Field(ge=4), NO_EFFECT] = 120
    """Subnets that are scored and evaluated, spread over the MACs of the space."""
    accuracy: Literal["knn", "linear"] = "knn"
    """What subnets are evaluated by, with the settings of the section `evaluation`."""
    bins: Annotated[Count, NO_EFFECT] = 4
    """Parts of equal numbers of subnets, by latency where there is a table, by MACs otherwise."""
    draws: Annotated[int, Field(ge=100), NO_EFFECT] = 1000
    """How often subnets are drawn anew for the intervals."""
    seed: Annotated[CountFromZero, NO_EFFECT] = 0
    """Which subnets are drawn."""
