"""The linear classifier and the linear probe, against scikit-learn's regression."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgesearch.errors import DataError
from edgesearch.evaluate.linear import INVERSE_PENALTIES, _held_out, fit_linear, linear_accuracy


def clusters(count, classes, seed, spread=0.6):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    features = torch.eye(classes, 8)[labels] + spread * torch.randn(count, 8, generator=generator)
    return 3 + features * torch.logspace(-1, 1, 8), labels


def regression(features, labels, penalty=1.0):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000))
    return model.fit(features.numpy(), labels.numpy())


class TestClassifier:
    @pytest.mark.parametrize("classes", [2, 5])
    def test_equals_the_regression_of_scikit_learn(self, classes):
        features, labels = clusters(200, classes, 0)
        others, _ = clusters(100, classes, 1)
        model = regression(features, labels)
        expected = torch.from_numpy(model.predict_proba(others.numpy())).float()
        layer = fit_linear(features, labels, classes)
        torch.testing.assert_close(layer(others).softmax(dim=1), expected, atol=1e-3, rtol=1e-3)
        assert not any(parameter.requires_grad for parameter in layer.parameters())

    @pytest.mark.parametrize("occurring", [(1, 4), (0, 2, 3)])
    def test_a_class_that_does_not_occur_never_wins(self, occurring):
        features, positions = clusters(60, len(occurring), 0, 0.01)
        features[:, 5] = 2.0  # constant features do no harm
        labels = torch.tensor(occurring)[positions]
        layer = fit_linear(features, labels, 6)
        assert layer.out_features == 6
        assert (layer(features).argmax(dim=1) == labels).all()
        assert set(layer(1e3 * torch.randn(500, 8)).argmax(dim=1).tolist()) <= set(occurring)


class TestProbe:
    """Accuracies of a probe whose penalty is chosen on held-out training features."""

    @pytest.mark.parametrize(("classes", "spread"), [(2, 0.8), (4, 0.3), (4, 0.8)])
    def test_the_penalty_is_the_heaviest_of_the_best_on_held_out_features(self, classes, spread):
        (train, labels), test = clusters(300, classes, 0, spread), clusters(400, classes, 1, spread)
        train, held_out = train.double(), _held_out(labels, 0)
        scores = [
            regression(train[~held_out], labels[~held_out], penalty).score(
                train[held_out].numpy(), labels[held_out].numpy()
            )
            for penalty in INVERSE_PENALTIES
        ]
        best = regression(train, labels, INVERSE_PENALTIES[scores.index(max(scores))])
        expected = best.score(test[0].double().numpy(), test[1].numpy())
        assert 0.5 < linear_accuracy(train, labels, *test) == expected < 1

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

    @pytest.mark.parametrize(
        ("labels", "message"),
        [(range(4), "two or more training images of a class"), ([1] * 4, "of two classes or more")],
    )
    def test_too_few_images_are_refused(self, labels, message):
        features, labels = torch.randn(4, 3), torch.tensor(labels)
        with pytest.raises(DataError, match=message):
            linear_accuracy(features, labels, features, labels)
