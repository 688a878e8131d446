"""The configuration sections `evaluation` and `rank`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgesearch.settings import NO_EFFECT, Count, Positive, Seed, Settings


class EvaluationSettings(Settings):
    """Accuracies of subnets, in `evaluate` and at the end of `run`.

    Features are those of the backbone, recalibrated on `search.calibration_images` images.

    Source: Wu et al., "Unsupervised feature learning via non-parametric instance discrimination"
    (CVPR 2018), section 3.4, for the defaults of the kNN vote.
    """

    knn_k: Count = 200
    """Neighbours that vote."""
    knn_temperature: Positive = 0.1
    """T of a neighbour's weight exp(cosine / T)."""
    train_images: Count = 20_000
    """Maximum of labelled training images; a seeded sample of more."""
    test_images: Count = 5_000
    """Maximum of test images."""


class RankSettings(Settings):
    """Rank correlation between the score and the accuracy of subnets."""

    subnets: Annotated[int, Field(ge=4), NO_EFFECT] = 120
    """Subnets to score and evaluate, spread over the MACs of the space."""
    accuracy: Literal["knn", "linear"] = "knn"
    """Kind of accuracy, with the settings of the section `evaluation`."""
    bins: Annotated[Count, NO_EFFECT] = 4
    """Bins of equal numbers of subnets, by latency if there is a table, else by MACs."""
    draws: Annotated[int, Field(ge=100), NO_EFFECT] = 1000
    """Bootstrap draws for the intervals."""
    seed: Annotated[Seed, NO_EFFECT] = 0
    """Seed of the choice of subnets."""
