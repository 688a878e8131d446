"""Each score against a slow one that is written out, and what must not change it."""

import math

import pytest
import torch
from sklearn.linear_model import Ridge

from edgesearch.search import similarity
from edgesearch.search.similarity import (
    alignment_of_places,
    cosine_of_embeddings,
    kernel_alignment,
    regression_on_features,
    relation_of_images,
    relation_of_places,
    released_similarity,
    self_similarity,
)

OF_IMAGES = (relation_of_images, kernel_alignment)
OF_PLACES = (self_similarity, relation_of_places, released_similarity, alignment_of_places)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(size):
    return torch.linalg.qr(drawn(size, size, seed=9))[0]


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def cosine(a, b):
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def correlation(a, b):
    a, b = ([x - math.fsum(row) / len(row) for x in row] for row in (a, b))
    return cosine(a, b)


def matrix(vectors):
    return [[cosine(a, b) for b in vectors] for a in vectors]


def without(row, index):
    return [x for i, x in enumerate(row) if i != index]


def alignment(first, second):
    """Centred kernel alignment by centring both Gram matrices."""
    count = len(first)

    def gram(vectors):
        plain = [[dot(a, b) for b in vectors] for a in vectors]
        rows = [math.fsum(row) / count for row in plain]
        whole = math.fsum(rows) / count
        return [
            [plain[i][j] - rows[i] - rows[j] + whole for j in range(count)] for i in range(count)
        ]

    of_first, of_second = ([x for row in gram(vectors) for x in row] for vectors in (first, second))
    return cosine(of_first, of_second)


def mean_rows(first, second, compare):
    pairs = enumerate(zip(matrix(first), matrix(second), strict=True))
    return math.fsum(compare(i, a, b) for i, (a, b) in pairs) / len(first)


SLOW = {
    self_similarity: lambda x, y: mean_rows(x, y, lambda i, a, b: cosine(a, b)),
    relation_of_places: lambda x, y: mean_rows(
        x, y, lambda i, a, b: correlation(without(a, i), without(b, i))
    ),
    released_similarity: lambda x, y: mean_rows(x, y, lambda i, a, b: dot(a, b) / len(a)),
    alignment_of_places: alignment,
}


def test_cosine_by_hand():
    first, second = drawn(5, 4), drawn(5, 4, seed=1)
    expected = [cosine(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    assert cosine_of_embeddings(first, second).tolist() == pytest.approx(expected, abs=1e-6)


def test_relation_by_hand():
    first, second = drawn(7, 4).tolist(), drawn(7, 3, seed=1).tolist()
    expected = [
        correlation(without(a[:5], i), without(b[:5], i))
        for i, (a, b) in enumerate(zip(matrix(first), matrix(second), strict=True))
    ]
    found = relation_of_images(torch.tensor(first), torch.tensor(second), bank=5)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("widths", [(4, 3), (20, 30)], ids=["narrow", "wide"])
def test_alignment_by_hand(widths):
    first, second = drawn(9, widths[0]), drawn(9, widths[1], seed=1)
    expected = alignment(first.tolist(), second.tolist())
    assert float(kernel_alignment(first, second).mean()) == pytest.approx(expected, abs=1e-5)


def test_the_figures_of_images_are_how_the_alignment_changes_with_more_images_like_them():
    first, second = drawn(400, 3), drawn(400, 5, seed=1)
    second[:, :3] += first
    figures = kernel_alignment(first, second)
    whole = float(figures.mean())
    doubled = []
    for i in range(20):
        x, y = (torch.cat([z, z[i : i + 1]]) for z in (first, second))
        doubled.append(401 * (float(kernel_alignment(x, y).mean()) - whole))
    assert doubled == pytest.approx([float(f) - whole for f in figures[:20]], rel=0.04, abs=0.02)


@pytest.mark.parametrize("widths", [(4, 3), (20, 5)], ids=["narrow", "wide"])
def test_regression_by_hand(widths):
    """Each image predicted from the others, by scikit-learn; the penalty is that of all images."""
    first, second = drawn(9, widths[0]).double(), drawn(9, widths[1], seed=1).double()
    second[:, :3] += first[:, :3]
    second = second / second.norm(dim=1, keepdim=True)
    centred = first - first.mean(dim=0)
    penalty = similarity.PENALTY * float(centred.square().sum()) / len(first)
    mean, expected = second.mean(dim=0), []
    for i in range(len(first)):
        others = [j for j in range(len(first)) if j != i]
        model = Ridge(alpha=penalty).fit(first[others], second[others])
        predicted = torch.from_numpy(model.predict(first[i : i + 1])[0])
        expected.append(cosine((predicted - mean).tolist(), (second[i] - mean).tolist()))
    found = regression_on_features(first.float(), 3 * second.float())
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("compare", OF_PLACES)
@pytest.mark.parametrize("block", [similarity.BLOCK_BYTES, 200, 3 * 4 * 12], ids=str)
def test_places_by_hand(monkeypatch, compare, block):
    monkeypatch.setattr(similarity, "BLOCK_BYTES", block)
    first, second = drawn(5, 4, 3, 4), drawn(5, 6, 3, 4, seed=1)
    expected = [
        SLOW[compare](x.flatten(1).T.tolist(), y.flatten(1).T.tolist())
        for x, y in zip(first, second, strict=True)
    ]
    assert compare(first, second).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("compare", OF_IMAGES)
def test_rotation_scale_and_width_do_not_matter_to_relations_of_images(compare):
    first, second = drawn(30, 6), drawn(30, 9, seed=1)
    found = compare(first, second)
    assert torch.allclose(compare(3 * first @ rotation(6), second), found, atol=1e-5)
    assert torch.allclose(compare(first, 0.1 * second @ rotation(9)), found, atol=1e-5)
    assert torch.allclose(compare(first, 2 * first @ rotation(6)).mean(), torch.ones(()), atol=1e-5)
    assert float(found.mean()) < 0.6


def test_a_rotation_matters_to_the_cosine():
    first = drawn(30, 6)
    assert float(cosine_of_embeddings(5 * first, first).mean()) == pytest.approx(1.0, abs=1e-5)
    assert float(cosine_of_embeddings(first @ rotation(6), first).mean()) < 0.9


@pytest.mark.parametrize("compare", OF_PLACES)
def test_rotation_scale_and_width_do_not_matter_to_relations_of_places(compare):
    first, second = drawn(3, 4, 4, 4), drawn(3, 8, 4, 4, seed=1)
    found = compare(first, second)
    turned = torch.einsum("nchw,cd->ndhw", 7 * second, rotation(8))
    assert torch.allclose(compare(first, turned), found, atol=1e-5)


@pytest.mark.parametrize("compare", [self_similarity, relation_of_places, alignment_of_places])
def test_a_map_agrees_most_with_itself(compare):
    maps = drawn(3, 4, 4, 4).relu() + 0.1
    assert torch.allclose(compare(2 * maps, maps), torch.ones(3), atol=1e-5)
    assert bool((compare(drawn(3, 4, 4, 4, seed=1).relu() + 0.1, maps) < 0.99).all())


def test_a_collapsed_map_is_rewarded_by_the_released_form_only():
    maps = drawn(3, 6, 4, 4).relu() + 0.1
    collapsed = torch.ones(3, 6, 4, 4)
    assert bool((released_similarity(collapsed, maps) > released_similarity(maps, maps)).all())
    assert bool((self_similarity(collapsed, maps) < self_similarity(maps, maps)).all())
    assert relation_of_places(collapsed, maps).tolist() == pytest.approx([0.0] * 3, abs=1e-6)


def test_networks_that_see_all_images_alike_are_aligned_with_nothing():
    for compare in (kernel_alignment, regression_on_features):
        assert compare(torch.ones(5, 3), drawn(5, 4)).tolist() == [0.0] * 5
        assert compare(drawn(5, 4), torch.ones(5, 3)).tolist() == [0.0] * 5


def test_rotation_and_scale_do_not_matter_to_a_regression_but_what_it_can_see_does():
    first, second = drawn(60, 6), drawn(60, 9, seed=1)
    found = regression_on_features(first, second)
    turned = regression_on_features(3 * first @ rotation(6), 0.1 * second @ rotation(9))
    assert torch.allclose(turned, found, atol=1e-5)
    assert abs(float(found.mean())) < 0.3  # nothing in common
    half = regression_on_features(second[:, :4], second).mean()
    assert 0.3 < float(half) < float(regression_on_features(second, second).mean())


def test_a_smaller_grid_is_enlarged_to_that_of_the_reference():
    coarse, fine = drawn(2, 4, 3, 3), drawn(2, 5, 6, 6, seed=1)
    enlarged = torch.nn.functional.interpolate(coarse, (6, 6), mode="bilinear")
    assert torch.equal(self_similarity(coarse, fine), self_similarity(enlarged, fine))


def test_memory_for_places_is_bounded(monkeypatch):
    """Blocks are as small as they are told to be, however many places there are."""
    sizes = []

    def compare(x, y, others):
        sizes.append([z.untyped_storage().nbytes() for z in (x, y, others)])
        return similarity._cosine(x, y, others)

    monkeypatch.setattr(similarity, "BLOCK_BYTES", 1 << 16)
    maps = drawn(3, 2, 32, 32)
    similarity._over_places(maps, maps, compare)
    assert max(map(max, sizes)) <= 1 << 16
    assert sum(size for size, _, _ in sizes) == 3 * 4 * 1024**2


def test_a_map_of_one_place_has_no_relations():
    first, second = torch.rand(3, 8, 1, 1), torch.rand(3, 4, 1, 1)
    assert relation_of_places(first, second).tolist() == [0, 0, 0]
