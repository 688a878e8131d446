"""The head between features and embeddings."""

import pytest
import torch
import torch.nn.functional as F

from edgesearch.supernet.projector import Projector


@pytest.mark.parametrize("width", [12, 5])
def test_without_normalisation(width):
    torch.manual_seed(0)
    projector = Projector(12, 7, 4, bn=False)
    features = torch.randn(3, width)
    hidden = F.relu(features @ projector.fc1.weight[:, :width].T + projector.fc1.bias)
    expected = F.normalize(hidden @ projector.fc2.weight.T + projector.fc2.bias)
    torch.testing.assert_close(projector(features), expected)


def test_with_normalisation():
    torch.manual_seed(0)
    projector = Projector(12, 7, 4, bn=True)
    features = torch.randn(6, 5)
    hidden = features @ projector.fc1.weight[:, :5].T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    expected = F.normalize(F.relu(hidden) @ projector.fc2.weight.T + projector.fc2.bias)
    torch.testing.assert_close(projector(features), expected)
    assert projector.fc1.bias is None


def test_projections_are_embeddings_before_they_get_length_1():
    projector, features = Projector(12, 7, 4, bn=False), torch.randn(5, 8)
    projected = projector.project(features)
    assert not torch.allclose(projected.norm(dim=1), torch.ones(5), atol=1e-3)
    torch.testing.assert_close(F.normalize(projected, dim=1), projector(features))


def test_embeddings_have_length_1():
    embeddings = Projector(12, 7, 4, bn=False)(torch.randn(5, 12))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
