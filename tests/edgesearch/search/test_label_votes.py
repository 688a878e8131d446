"""The score by labels, against one vote after another."""

import torch

from edgesearch.evaluate.knn import knn_predictions
from edgesearch.search.label_votes import NEIGHBOURS, TEMPERATURE, label_score


def clusters(count=90):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    return torch.eye(3, 8)[labels] + 0.7 * torch.randn(count, 8, generator=generator), labels


def test_each_image_is_judged_by_all_others():
    features, labels = clusters()
    expected = []
    for number in range(len(labels)):
        others = torch.arange(len(labels)) != number
        one = features[number : number + 1]
        voted = knn_predictions(features[others], labels[others], one, NEIGHBOURS, TEMPERATURE)
        expected.append(float(voted[0] == labels[number]))
    found = label_score(features, labels)
    assert found.tolist() == expected
    assert 0.4 < found.mean() < 0.95


def test_rotations_scales_and_names_of_classes_change_nothing():
    features, labels = clusters()
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))[0]
    renamed = torch.tensor([2, 0, 7])[labels]
    assert torch.equal(label_score(3 * features @ rotation, renamed), label_score(features, labels))


def test_fewer_images_than_neighbours():
    features, labels = clusters(6)
    assert label_score(features, labels).shape == (6,)
