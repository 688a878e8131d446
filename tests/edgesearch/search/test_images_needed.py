"""How many images a search looks at."""

import pytest
import torch

from edgesearch.search.images_needed import RELIABLE, doubled, find_images_needed, reliability


def made_up(candidates, images, own, chance, seed=0):
    """Scores with a part of the candidate, one of the image and one of neither."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return own * normal(candidates, 1) + 5 * normal(1, images) + chance * normal(candidates, images)


def test_equals_cronbachs_alpha():
    """The same figure by another way: from the variances of the images and of their sums."""
    scores = made_up(9, 12, 1.0, 2.0)
    of_sums, of_images = scores.sum(dim=1).var(), scores.var(dim=0).sum()
    expected = 12 / 11 * (1 - float(of_images / of_sums))
    assert reliability(scores) == pytest.approx(expected)


def test_is_the_share_of_the_candidates_variance():
    found = reliability(made_up(2000, 25, own=1.0, chance=5.0))
    assert found == pytest.approx(1 / (1 + 25 / 25), abs=0.05)


def test_images_that_are_hard_for_all_do_no_harm():
    scores = made_up(10, 20, 1.0, 0.5)
    assert reliability(scores + 100 * torch.arange(20)) == pytest.approx(reliability(scores))


def test_candidates_that_are_all_alike():
    assert reliability(torch.ones(4, 5, dtype=torch.float64)) == 0.0


@pytest.mark.parametrize(
    ("first", "most", "expected"),
    [(8, 64, [8, 16, 32, 64]), (8, 20, [8, 16, 20]), (8, 8, [8]), (8, 5, [5]), (1, 3, [1, 2, 3])],
)
def test_doubled(first, most, expected):
    assert list(doubled(first, most)) == expected


class TestFind:
    def find(self, chance, first=8, most=1024, candidates=8):
        scores, asked = made_up(candidates, most, 1.0, chance), []

        def scores_on(pilots, images):
            asked.extend([images] * len(pilots))
            return scores[list(pilots), :images]

        return find_images_needed(scores_on, range(candidates), first, most), asked

    def test_few_suffice_where_candidates_are_far_apart(self):
        found, asked = self.find(chance=0.1)
        assert found.images == 8
        assert found.reliability >= RELIABLE
        assert asked == [8] * 8
        assert found.doubt == ""

    def test_the_closer_they_are_the_more(self):
        counts = [self.find(chance)[0].images for chance in (0.1, 0.7, 1.5)]
        assert counts == sorted(set(counts))
        assert 8 < counts[1] < counts[2] < 1024

    def test_at_most_the_bound(self):
        found, asked = self.find(chance=50.0)
        assert found.images == 1024
        assert found.reliability < RELIABLE
        assert max(asked) == 512  # there is no choice left, so nothing to find out
        assert "too alike to be ranked: their agreements have a reliability of 0." in found.doubt
        assert "search.reference=teacher" in found.doubt

    def test_nothing_to_find_out(self):
        found, asked = self.find(chance=1.0, first=64, most=64)
        assert (found.images, asked) == (64, [64] * 8)  # asked for the reliability alone
        found, asked = self.find(chance=0.1, candidates=1)
        assert (found.images, found.reliability, asked) == (1024, None, [])
