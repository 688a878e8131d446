"""The nearest-neighbour vote, against a slow one written independently."""

import math

import pytest
import torch

from edgesearch.evaluate.knn import knn_accuracy


def slow_accuracy(train, train_labels, test, test_labels, k, temperature):
    hits = 0
    for row, label in zip(test.tolist(), test_labels.tolist(), strict=True):
        neighbours = []
        for other, other_label in zip(train.tolist(), train_labels.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(row, other, strict=True))
            neighbours.append((dot / (math.hypot(*row) * math.hypot(*other)), other_label))
        votes = {}
        for cosine, other_label in sorted(neighbours, reverse=True)[:k]:
            votes[other_label] = votes.get(other_label, 0.0) + math.exp(cosine / temperature)
        hits += max(votes, key=lambda name: votes[name]) == label
    return hits / len(test_labels)


def clusters(count, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    features = torch.eye(3, 8)[labels] + spread * torch.randn(count, 8, generator=generator)
    return features * (1 + labels[:, None]), labels


@pytest.mark.parametrize("k", [1, 5, 60, 200])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_equals_the_slow_vote(k, temperature):
    train, test = clusters(60, 0.6, 0), clusters(45, 0.6, 1)
    expected = slow_accuracy(*train, *test, k, temperature)
    assert 0.4 < expected < 1
    assert knn_accuracy(*train, *test, k=k, temperature=temperature) == expected


def test_features_without_meaning_give_chance():
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.randn(n, 16, generator=generator) for n in (1000, 2000))
    train_labels, test_labels = (torch.randint(4, (n,), generator=generator) for n in (1000, 2000))
    accuracy = knn_accuracy(train, train_labels, test, test_labels, k=20)
    assert accuracy == pytest.approx(0.25, abs=0.05)


def test_more_images_than_fit_in_one_chunk():
    train, test = clusters(60, 0.3, 0), clusters(2100, 0.3, 1)
    parts = [
        knn_accuracy(*train, f, y, k=5)
        for f, y in zip(*map(torch.Tensor.chunk, test, (3, 3)), strict=True)
    ]
    assert knn_accuracy(*train, *test, k=5) == pytest.approx(sum(parts) / 3)


def test_a_class_that_was_never_seen_is_never_right():
    train, (features, labels) = clusters(60, 0.01, 0), clusters(10, 0.01, 1)
    assert knn_accuracy(*train, features, labels, k=5) == 1.0
    assert knn_accuracy(*train, features, torch.full((10,), 7), k=5) == 0.0


def test_a_low_temperature_leaves_the_nearest_to_decide():
    train, test = clusters(60, 0.6, 0), clusters(45, 0.6, 1)
    assert knn_accuracy(*train, *test, k=60, temperature=1e-4) == knn_accuracy(*train, *test, k=1)
