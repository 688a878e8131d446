"""The linear classifier, against scikit-learn's."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgesearch.errors import DataError, TrainingError
from edgesearch.evaluate.linear import (
    INVERSE_PENALTIES,
    _held_out,
    fit_linear,
    linear_accuracy,
    rank_penalties,
)


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


def probed(penalty, train, test):
    """Accuracy of scikit-learn's own regression with one penalty."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000))
    model.fit(train[0].double().numpy(), train[1].numpy())
    return model.score(test[0].double().numpy(), test[1].numpy())


class TestProbe:
    """Accuracies of a probe whose penalty is chosen on held-out training features."""

    @pytest.mark.parametrize(("classes", "spread"), [(2, 0.8), (4, 0.3), (4, 0.8)])
    def test_equals_the_regression_of_scikit_learn(self, classes, spread):
        train, test = clusters(300, classes, 0, spread), clusters(400, classes, 1, spread)
        best, *_ = rank_penalties(train[0].double(), train[1], classes, seed=0)
        accuracy = linear_accuracy(*train, *test)
        assert 0.5 < accuracy < 1
        assert accuracy == pytest.approx(probed(best, train, test), abs=1 / 400)

    def test_penalties_are_ranked_by_features_that_were_not_fitted(self):
        features, labels = clusters(300, 4, 0, 0.8)
        features = torch.cat([features, 9 * torch.randn(300, 100)], dim=1)
        ranked = rank_penalties(features.double(), labels, 4, seed=0)
        held_out = _held_out(labels, 0)
        parts = [(features[part], labels[part]) for part in (~held_out, held_out)]
        scores = [probed(penalty, *parts) for penalty in ranked]
        assert set(ranked) == set(INVERSE_PENALTIES)
        assert scores == pytest.approx(sorted(scores, reverse=True), abs=1 / 60)
        assert scores[0] > scores[-1]

    def test_a_fifth_of_each_class_is_held_out(self):
        labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 2 + [3])
        held_out = _held_out(labels, 0)
        assert labels[held_out].bincount(minlength=4).tolist() == [10, 2, 1, 0]
        assert torch.equal(held_out, _held_out(labels, 0))
        assert not torch.equal(held_out, _held_out(labels, 1))

    def test_the_scale_of_features_does_not_matter(self):
        (train, labels), (test, test_labels) = clusters(300, 4, 0, 0.8), clusters(200, 4, 1, 0.8)
        scale = torch.logspace(-3, 3, 8)
        expected = linear_accuracy(train, labels, test, test_labels)
        assert linear_accuracy(train * scale, labels, test * scale, test_labels) == expected

    def test_a_class_that_was_never_seen_is_never_right(self):
        train, (features, _) = clusters(60, 3, 0, 0.1), clusters(10, 3, 1, 0.1)
        assert linear_accuracy(*train, features, torch.full((10,), 7)) == 0.0

    def test_features_without_meaning_give_chance(self):
        generator = torch.Generator().manual_seed(0)
        train, test = (torch.randn(n, 16, generator=generator) for n in (400, 2000))
        labels = [torch.randint(4, (n,), generator=generator) for n in (400, 2000)]
        assert linear_accuracy(train, labels[0], test, labels[1]) == pytest.approx(0.25, abs=0.05)

    def test_what_does_not_converge_is_no_candidate(self):
        features, labels = clusters(300, 4, 0, 0.8)
        few = rank_penalties(features.double(), labels, 4, seed=0, max_iterations=6)
        assert 0 < len(few) < len(INVERSE_PENALTIES)
        assert max(few) < max(INVERSE_PENALTIES)
        with pytest.raises(TrainingError, match="a linear probe that converges within 1 iter"):
            linear_accuracy(features, labels, features, labels, max_iterations=1)

    def test_one_image_of_each_class_is_refused(self):
        features, labels = clusters(4, 4, 0)
        with pytest.raises(DataError, match="two or more training images of a class"):
            linear_accuracy(features, labels, features, labels)

    def test_one_class_is_refused(self):
        features, labels = torch.randn(10, 3), torch.ones(10, dtype=torch.long)
        with pytest.raises(DataError, match="images of two classes or more"):
            linear_accuracy(features, labels, features, labels)
