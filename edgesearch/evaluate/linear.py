"""A linear classifier on top of features."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from edgesearch.errors import DataError

INVERSE_PENALTIES = tuple(10.0**exponent for exponent in range(-4, 4))
"""What `linear_accuracy` chooses from, heaviest penalty first."""
HELD_OUT = 0.2
"""Share of each class of the training features on which it chooses."""
MAX_ITERATIONS = 1000
"""Of L-BFGS, for each penalty."""


def linear_accuracy(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    test_labels: torch.Tensor,
    seed: int = 0,
) -> float:
    """Accuracy of a linear probe: logistic regression on features that stay as they are.

    Features are standardised and the regression is fitted with L-BFGS, with an L2 penalty whose
    inverse (scikit-learn's C) is the power of ten in 1e-4 … 1e3 that is best on a fifth of the
    training features, held out of each class; of equals the heaviest penalty. It is then fitted
    anew to all training features. The test features decide nothing.

    Source: Radford et al., "Learning transferable visual models from natural language supervision"
    (ICML 2021), appendix A.3, which sweeps the penalty of L-BFGS on a validation split in this way
    (in 96 steps); Kornblith et al., "Do better ImageNet models transfer better?" (CVPR 2019).

    Args:
        train_features: (N, D).
        train_labels: (N,) int64.
        test_features: (M, D).
        test_labels: (M,) int64.
        seed: Decides which training features choose the penalty.

    Returns:
        Share of the test images that are classified rightly, in 0 … 1.

    Raises:
        DataError: Fewer than two classes occur, or none twice.
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
        warnings.simplefilter("ignore", ConvergenceWarning)  # it counts as far as it came
        model.fit(train, labels.numpy())
    return float(model.score(test_features.cpu().double().numpy(), test_labels.cpu().numpy()))


def _held_out(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """A fifth of each class, but one at least of two: (N,) bool."""
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = max(round(len(members) * HELD_OUT), 1) if len(members) > 1 else 0
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return held_out


def require_two_classes(labels: torch.Tensor) -> None:
    """Refuse labels (N,) that no classifier can be trained with.

    Raises:
        DataError: Fewer than two classes occur.
    """
    if len(labels.unique()) < 2:
        raise DataError(
            "images of two classes or more, to train a linear classifier",
            f"images of {len(labels.unique())} class(es) that can be read",
            "Add class folders; an export needs none with export.output=features.",
        )


def fit_linear(features: torch.Tensor, labels: torch.Tensor, classes: int) -> nn.Linear:
    """Train a classifier by scikit-learn's logistic regression on standardised features.

    Args:
        features: (N, D).
        labels: (N,) int64.
        classes: Number of classes; one that does not occur gets a logit that never wins.

    Returns:
        A layer (N, D) to logits (N, classes), the standardisation folded in.

    Raises:
        DataError: Fewer than two classes occur.
    """
    require_two_classes(labels)
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    model = LogisticRegression(max_iter=MAX_ITERATIONS)
    model.fit(scaler.fit_transform(features.numpy()), labels.numpy())
    rows, intercepts = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if len(model.classes_) == 2:  # one row tells the two apart
        rows = torch.cat([-rows / 2, rows / 2])
        intercepts = torch.cat([-intercepts / 2, intercepts / 2])
    rows = rows / torch.from_numpy(scaler.scale_)
    layer = nn.Linear(features.shape[1], classes).requires_grad_(False)
    layer.weight.zero_()[model.classes_] = rows.float()
    layer.bias.fill_(-1e4)[model.classes_] = (
        intercepts - rows @ torch.from_numpy(scaler.mean_)
    ).float()
    return layer
