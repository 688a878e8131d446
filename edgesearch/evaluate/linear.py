"""A linear classifier on top of features."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from edgesearch.errors import DataError, TrainingError

INVERSE_PENALTIES = tuple(10.0**exponent for exponent in range(-4, 4))
"""What `linear_accuracy` chooses from, heaviest penalty first."""
HELD_OUT = 0.2
"""Share of each class of the training features on which it chooses."""
MAX_ITERATIONS = 1000


def linear_accuracy(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    test_labels: torch.Tensor,
    seed: int = 0,
    max_iterations: int = MAX_ITERATIONS,
) -> float:
    """Accuracy of a linear probe: logistic regression on features that stay as they are.

    Features are standardised and the regression is fitted with L-BFGS until it converges, with an
    L2 penalty whose inverse (scikit-learn's C) is the power of ten in 1e-4 … 1e3 that is best on a
    fifth of the training features, held out of each class; of equals the heaviest penalty. It is
    then fitted anew to all training features. The test features decide nothing.

    Source: Radford et al., "Learning transferable visual models from natural language supervision"
    (ICML 2021), appendix A.3, which sweeps the penalty of L-BFGS on a validation split in this way
    (in 96 steps); Kornblith et al., "Do better ImageNet models transfer better?" (CVPR 2019).

    Args:
        train_features: (N, D).
        train_labels: (N,) int64.
        test_features: (M, D).
        test_labels: (M,) int64.
        seed: Decides which training features choose the penalty.
        max_iterations: A penalty whose fit takes more of them is no candidate.

    Returns:
        Share of the test images that are classified rightly, in 0 … 1.

    Raises:
        DataError: Fewer than two classes occur, or none twice.
        TrainingError: No fit converges.
    """
    train, labels = train_features.cpu().double(), train_labels.cpu()
    classes = int(torch.cat([labels, test_labels.cpu()]).max()) + 1
    for penalty in rank_penalties(train, labels, classes, seed, max_iterations):
        layer = _fit_to_the_end(train, labels, classes, penalty, max_iterations)
        if layer is not None:
            return _accuracy(layer, test_features.cpu(), test_labels.cpu())
    raise TrainingError(
        f"a linear probe that converges within {max_iterations} iterations",
        f"none of the {len(INVERSE_PENALTIES)} penalties led to one",
        "Check that the features are finite, or allow more iterations.",
    )


def rank_penalties(
    features: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    seed: int,
    max_iterations: int = MAX_ITERATIONS,
) -> list[float]:
    """Inverse penalties whose fits converge, the best on held-out features first.

    Args:
        features: (N, D), of which a fifth of each class is held out.
        labels: (N,) int64.
        classes: Number of classes.
        seed: Decides which features are held out.
        max_iterations: Bound of each fit.

    Raises:
        DataError: Fewer than two classes occur, or none twice.
    """
    held_out = _held_out(labels, seed)
    if not held_out.any():
        raise DataError(
            "two or more training images of a class, to choose the penalty of a linear probe",
            "one at most of each class",
            "Add images to the class folders.",
        )
    found = []
    for penalty in INVERSE_PENALTIES:
        layer = _fit_to_the_end(
            features[~held_out], labels[~held_out], classes, penalty, max_iterations
        )
        if layer is None:
            break  # lighter penalties take longer still
        found.append((_accuracy(layer, features[held_out], labels[held_out]), penalty))
    return [penalty for _, penalty in sorted(found, key=lambda pair: -pair[0])]


def _held_out(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """A fifth of each class, but one at least of two: (N,) bool."""
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = max(round(len(members) * HELD_OUT), 1) if len(members) > 1 else 0
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return held_out


def _fit_to_the_end(
    features: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    inverse_penalty: float,
    max_iterations: int,
) -> nn.Linear | None:
    """The classifier, or None if the fit did not converge."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return fit_linear(features, labels, classes, inverse_penalty, max_iterations)
        except ConvergenceWarning:
            return None


def _accuracy(layer: nn.Linear, features: torch.Tensor, labels: torch.Tensor) -> float:
    logits = layer(features.to(layer.weight.dtype))
    return float((logits.argmax(dim=1) == labels).double().mean())


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


def fit_linear(
    features: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    inverse_penalty: float = 1.0,
    max_iterations: int = MAX_ITERATIONS,
) -> nn.Linear:
    """Train a classifier by logistic regression on standardised features.

    Args:
        features: (N, D).
        labels: (N,) int64.
        classes: Number of classes; one that does not occur gets a logit that never wins.
        inverse_penalty: Inverse of the L2 penalty: scikit-learn's C.
        max_iterations: Of L-BFGS; scikit-learn warns if they are not enough.

    Returns:
        A layer (N, D) to logits (N, classes), the standardisation folded in.

    Raises:
        DataError: Fewer than two classes occur.
    """
    require_two_classes(labels)
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.numpy())
    standardised = scaler.transform(features.numpy())
    model = LogisticRegression(C=inverse_penalty, max_iter=max_iterations)
    model.fit(standardised, labels.numpy())
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64)
    bias = torch.full((classes,), -1e4, dtype=torch.float64)
    rows, intercepts = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if len(model.classes_) == 2:  # one row tells the two apart
        rows = torch.cat([-rows / 2, rows / 2])
        intercepts = torch.cat([-intercepts / 2, intercepts / 2])
    scale, mean = torch.from_numpy(scaler.scale_), torch.from_numpy(scaler.mean_)
    occurring = torch.from_numpy(model.classes_)
    weight[occurring] = rows / scale
    bias[occurring] = intercepts - (rows / scale) @ mean
    layer = nn.Linear(features.shape[1], classes)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer.requires_grad_(False)
