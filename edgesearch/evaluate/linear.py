"""Linear classifiers on features."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from edgesearch.errors import DataError

INVERSE_PENALTIES = tuple(10.0**exponent for exponent in range(-4, 4))
"""Candidates of `linear_accuracy`, strongest penalty first."""
MAX_ITERATIONS = 1000


def linear_accuracy(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    test_labels: torch.Tensor,
    seed: int = 0,
) -> float:
    """Accuracy of a linear probe, in 0 … 1; see `linear_predictions`."""
    found = linear_predictions(train_features, train_labels, test_features, seed)
    return float((found == test_labels.cpu()).double().mean())


def linear_predictions(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    seed: int = 0,
) -> torch.Tensor:
    """Classes (M,) int64 by a linear probe: logistic regression on frozen features.

    Features are standardised. L-BFGS fits the regression with an L2 penalty whose inverse
    (scikit-learn's C) is the power of ten in 1e-4 … 1e3 that is best on a held-out fifth of each
    class of the training features (ties: the strongest), and refits to all training features.

    Source: Radford et al., "Learning transferable visual models from natural language supervision"
    (ICML 2021), appendix A.3, which sweeps the penalty on a validation split this way;
    Kornblith et al., "Do better ImageNet models transfer better?" (CVPR 2019).

    Args:
        train_features: (N, D).
        train_labels: (N,) int64.
        test_features: (M, D).
        seed: Seed of the held-out fifth.

    Raises:
        DataError: There are fewer than two classes, or no class occurs twice.
    """
    train, labels = train_features.cpu().double().numpy(), train_labels.cpu()
    require_two_classes(labels)
    held_out = _held_out(labels, seed)
    if not held_out.any():
        raise DataError(
            "two or more training images of a class, to choose the penalty of a linear probe",
            "one at most of each class",
            "Add images to the class folders.",
        )
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    parts = [part.nonzero().flatten().numpy() for part in (~held_out, held_out)]
    model = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS)),
        {"logisticregression__C": INVERSE_PENALTIES},
        cv=[parts],
    )
    with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last iterate counts
        model.fit(train, labels.numpy())
    return torch.from_numpy(model.predict(test_features.cpu().double().numpy()))


def _held_out(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Mask (N,) of a fifth of each class, at least one of two."""
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = max(round(len(members) * 0.2), 1) if len(members) > 1 else 0
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return held_out


def require_two_classes(labels: torch.Tensor) -> None:
    """Check that labels (N,) can train a classifier.

    Raises:
        DataError: There are fewer than two classes.
    """
    if len(labels.unique()) < 2:
        raise DataError(
            "images of two classes or more, to train a linear classifier",
            f"images of {len(labels.unique())} class(es) that can be read",
            "Add class folders; an export needs none with export.output=features.",
        )


def fit_linear(features: torch.Tensor, labels: torch.Tensor, classes: int) -> nn.Linear:
    """Fit a classifier by scikit-learn's logistic regression on standardised features.

    Args:
        features: (N, D).
        labels: (N,) int64.
        classes: Number of classes; missing classes get a logit that never wins.

    Returns:
        A layer (N, D) to logits (N, classes) that includes the standardisation.

    Raises:
        DataError: There are fewer than two classes.
    """
    require_two_classes(labels)
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    model = LogisticRegression(max_iter=MAX_ITERATIONS)
    model.fit(scaler.fit_transform(features.numpy()), labels.numpy())
    rows, intercepts = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if len(model.classes_) == 2:  # scikit-learn fits one row
        rows = torch.cat([-rows / 2, rows / 2])
        intercepts = torch.cat([-intercepts / 2, intercepts / 2])
    rows = rows / torch.from_numpy(scaler.scale_)
    layer = nn.Linear(features.shape[1], classes).requires_grad_(False)
    layer.weight.zero_()[model.classes_] = rows.float()
    layer.bias.fill_(-1e4)[model.classes_] = (
        intercepts - rows @ torch.from_numpy(scaler.mean_)
    ).float()
    return layer
