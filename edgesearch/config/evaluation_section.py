"""The section `evaluation`."""

from __future__ import annotations

from edgesearch.settings import Count, Positive, Settings


class EvaluationSection(Settings):
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
    train_images: Count = 20000
    """Training images at most, with their labels; a seeded part where there are more."""
    test_images: Count = 5000
    """Images held out that are classified, at most."""
