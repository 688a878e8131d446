"""The linear classifier, against scikit-learn's."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgesearch.errors import DataError
from edgesearch.evaluate import fit_linear


def clusters(count, classes, seed, spread=0.6):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    features = torch.eye(classes, 8)[labels] + spread * torch.randn(count, 8, generator=generator)
    return 3 + features * torch.logspace(-1, 1, 8), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_equals_a_pipeline_of_scikit_learn(classes):
    features, labels = clusters(200, classes, 0)
    others, _ = clusters(100, classes, 1)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features.numpy(), labels.numpy())
    expected = torch.from_numpy(model.predict_proba(others.numpy())).float()
    layer = fit_linear(features, labels, classes)
    torch.testing.assert_close(layer(others).softmax(dim=1), expected, atol=1e-3, rtol=1e-3)


def test_constant_features_do_no_harm():
    features, labels = clusters(60, 3, 0, 0.01)
    features[:, 5] = 2.0
    layer = fit_linear(features, labels, 3)
    assert (layer(features).argmax(dim=1) == labels).all()


@pytest.mark.parametrize("occurring", [(1, 4), (0, 2, 3)])
def test_a_class_that_does_not_occur_never_wins(occurring):
    features, positions = clusters(60, len(occurring), 0, 0.01)
    labels = torch.tensor(occurring)[positions]
    layer = fit_linear(features, labels, 6)
    assert layer.out_features == 6
    assert (layer(features).argmax(dim=1) == labels).all()
    assert set(layer(1e3 * torch.randn(500, 8)).argmax(dim=1).tolist()) <= set(occurring)


def test_is_frozen():
    layer = fit_linear(*clusters(60, 3, 0), 3)
    assert not any(parameter.requires_grad for parameter in layer.parameters())


def test_one_class_is_refused():
    with pytest.raises(DataError, match="images of two classes or more"):
        fit_linear(torch.randn(10, 3), torch.ones(10, dtype=torch.long), 2)
