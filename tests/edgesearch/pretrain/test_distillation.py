"""Distillation: the loss, the crops that a teacher and its students share, and a whole training."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgesearch.data.image_set import ImageSet
from edgesearch.data.preprocess import Preprocess
from edgesearch.pretrain.batched_views import BatchedViews
from edgesearch.pretrain.lessons import (
    Lesson,
    SecondLesson,
    cosine_distance,
    fit_head,
    paired,
    similarity_loss,
)
from edgesearch.pretrain.recipes import RECIPES
from edgesearch.pretrain.sandwich import sandwich_step
from edgesearch.pretrain.settings import AugmentationSettings, JitterSettings
from edgesearch.pretrain.taught_views import BatchedTaughtViews, Crops, TaughtViews, Teaching
from edgesearch.pretrain.views import TorchvisionViews
from edgesearch.supernet.projector import Projector
from edgesearch.teacher.teacher_cache import TeacherCache

PLAIN = AugmentationSettings.model_validate(
    {"flip_probability": 0.0, "grayscale_probability": 0.0, "blur_probability": 0.0}
    | {"jitter": {"probability": 0.0}, "crop_scale": [0.3, 1.0]}
)
PREPROCESS = Preprocess(12, 1, (0.5,), (0.25,))


class MeanAndDeviation:
    """A teacher that sees mean and deviation of a crop."""

    name, size = "mean", 16

    def __call__(self, images):
        x = images.float().flatten(1) / 255
        return F.normalize(torch.stack([x.mean(dim=1), x.std(dim=1)], dim=1), dim=1)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (9, 1, 20, 24), generator=generator, dtype=torch.uint8)


@pytest.fixture
def teaching(images, tmp_path):
    crops = Crops(3, (0.3, 1.0), 4)
    cache = TeacherCache(tmp_path, {"images": "these"}, len(images) * 4, 2)
    image_set = ImageSet(tuple(images), 1, tmp_path)
    teaching = Teaching(MeanAndDeviation(), image_set, crops, cache, lambda event: None)
    teaching.fill(lambda: None)
    return teaching


def test_loss_is_the_mean_of_one_minus_cosine(embeddings_of):
    first, second = embeddings_of(6, 5), embeddings_of(6, 5, seed=1)
    slow = sum(
        1 - sum(a * b for a, b in zip(x, y, strict=True))
        for x, y in zip(first.tolist(), second.tolist(), strict=True)
    )
    assert float(cosine_distance(first, second)) == pytest.approx(slow / 6, rel=1e-5)
    assert float(cosine_distance(first, first)) == pytest.approx(0, abs=1e-6)


def slow_similarity_loss(embeddings, taught, queue, temperatures):
    def distribution(row, target, temperature):
        others = [target, *queue.T.tolist()]
        scores = [sum(a * b for a, b in zip(row, o, strict=True)) / temperature for o in others]
        powers = [math.exp(score - max(scores)) for score in scores]
        return [power / sum(powers) for power in powers]

    total = 0.0
    for own, target in zip(embeddings.tolist(), taught.tolist(), strict=True):
        wanted, found = (
            distribution(row, target, temperature)
            for row, temperature in zip((target, own), temperatures, strict=True)
        )
        total -= sum(p * math.log(q) for p, q in zip(wanted, found, strict=True))
    return total / len(taught)


def test_similarities_equal_the_slow_loss(embeddings_of):
    parts = embeddings_of(6, 5), embeddings_of(6, 5, seed=1), embeddings_of(9, 5, seed=2).T
    for temperatures in ((0.1, 0.2), (0.5, 0.3)):
        found = float(similarity_loss(*parts, temperatures))
        assert found == pytest.approx(slow_similarity_loss(*parts, temperatures), rel=1e-4)
    turned = similarity_loss(parts[0], parts[1], parts[2].flip(1), (0.1, 0.2))
    torch.testing.assert_close(turned, similarity_loss(*parts, (0.1, 0.2)))
    assert similarity_loss(parts[1], parts[1], parts[2], (0.1, 0.1)) < turned


def test_queue_holds_the_teacher_of_former_batches(embeddings_of):
    lesson = Lesson(5, 12, (0.1, 0.2))
    batches = [embeddings_of(6, 5, seed=seed) for seed in range(3)]
    for batch in batches:
        lesson.after_step(batch)
    torch.testing.assert_close(lesson.queue.keys, torch.cat([batches[2], batches[1]]).T)
    found = lesson(batches[0], batches[1])
    torch.testing.assert_close(
        found, similarity_loss(batches[0], batches[1], lesson.queue.keys, (0.1, 0.2))
    )


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"distillation"}))
def test_any_method_may_have_a_teacher_beside(name, new_method, two_views, embeddings_of, pinhole):
    """The gradient is that of both losses, and only the head learns from the teacher alone."""
    views, taught = two_views(), embeddings_of(4, 7)
    moves = {}
    for weight in (None, 1.0, 3.0):
        method = new_method(name)
        before = {key: tensor.clone() for key, tensor in method.query.state_dict().items()}
        if weight is not None:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                length = method.query.supernet.feature_dim
                method.second_lesson = SecondLesson(length, 7, Lesson(7, 8), weight)
        optimizer = torch.optim.SGD((p for p in method.parameters() if p.requires_grad), 1.0)
        given = views if weight is None else (*views, taught)
        result = sandwich_step(method, given, [pinhole.largest, pinhole.smallest], optimizer)
        assert result.finite
        moves[weight] = (
            torch.cat(
                [
                    (tensor - before[key]).flatten()
                    for key, tensor in method.query.supernet.named_parameters(prefix="supernet")
                ]
            ),
            result.losses,
        )
        if weight is not None:
            torch.testing.assert_close(method.second_lesson.lesson.queue.keys[:, :4], taught.T)
    (alone, losses), (one, with_one), (three, _) = (moves[weight] for weight in (None, 1.0, 3.0))
    assert losses == with_one
    torch.testing.assert_close(three - alone, 3 * (one - alone), rtol=1e-3, atol=1e-5)
    assert (one - alone).abs().max() > 1e-4


def test_second_views_are_those_without_a_teacher(images, teaching):
    strong = PLAIN.model_copy(update={"flip_probability": 0.5, "blur_probability": 0.5})
    indices = torch.tensor([7, 0, 4])
    parts = PREPROCESS, 3
    taught = TaughtViews([strong, PLAIN], *parts, teaching.crops, teaching.cache)
    batched = BatchedTaughtViews([strong, PLAIN], *parts, teaching.crops, teaching.cache)
    first, second, embeddings = batched(images[indices], indices, 2)
    torch.testing.assert_close(
        second, BatchedViews([strong, PLAIN], *parts)(images[indices], indices, 2)[1]
    )
    for row, index in enumerate(indices.tolist()):
        found = taught(images[index], index, 2)
        assert len(found) == 3
        torch.testing.assert_close(
            found[1], TorchvisionViews([strong, PLAIN], *parts)(images[index], index, 2)[1]
        )
        torch.testing.assert_close(found[2], embeddings[row])


def test_student_and_teacher_see_the_same_crop(images, teaching):
    """The embedding is that of the crop that the view shows, at another resolution."""
    views = TaughtViews([PLAIN], PREPROCESS, 3, teaching.crops, teaching.cache)
    seen = set()
    for epoch in range(30):
        view, taught = views(images[5], 5, epoch)
        number = teaching.crops.number(5, epoch)
        seen.add(number)
        crop = teaching.crops(images[5], 5, number, 16)
        torch.testing.assert_close(taught, MeanAndDeviation()(crop[None])[0], atol=1e-3, rtol=0)
        mean = (view * 0.25 + 0.5).mean()
        assert float(mean) == pytest.approx(float(crop.float().mean() / 255), abs=0.03)
    assert seen == {0, 1, 2, 3}


def test_batched_views_are_those_of_single_images(images, teaching):
    indices = torch.tensor([7, 0, 4])
    batched = BatchedTaughtViews([PLAIN], PREPROCESS, 3, teaching.crops, teaching.cache)
    single = TaughtViews([PLAIN], PREPROCESS, 3, teaching.crops, teaching.cache)
    for epoch in range(3):
        view, taught = batched(images[indices], indices, epoch)
        for row, index in enumerate(indices.tolist()):
            expected = single(images[index], index, epoch)
            torch.testing.assert_close(view[row], expected[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(taught[row], expected[1])


def test_flips_change_the_view_only(images, teaching):
    mirrored = PLAIN.model_copy(update={"flip_probability": 1.0})
    for kind in (TaughtViews, BatchedTaughtViews):
        pair = []
        for augmentation in (PLAIN, mirrored):
            views = kind([augmentation], PREPROCESS, 3, teaching.crops, teaching.cache)
            if kind is TaughtViews:
                pair.append(views(images[2], 2, 1))
            else:
                pair.append(views(images[2:3], torch.tensor([2]), 1))
        torch.testing.assert_close(pair[0][0].flip(-1), pair[1][0])
        torch.testing.assert_close(pair[0][1], pair[1][1])


class Quarters(MeanAndDeviation):
    """A teacher with maps: mean and deviation of each quarter of a crop."""

    def maps(self, images, grid):
        x = images.float() / 255
        mean = F.adaptive_avg_pool2d(x, grid)
        deviation = (F.adaptive_avg_pool2d(x.square(), grid) - mean.square()).sqrt()
        return F.normalize(torch.cat([mean, deviation], dim=1), dim=1)


@pytest.mark.parametrize("kind", [TaughtViews, BatchedTaughtViews])
def test_maps_are_mirrored_where_the_view_is(images, tmp_path, kind):
    """Each place of a map is that of the same place of the view; colours change the view alone."""
    cache = TeacherCache(tmp_path, {"images": "these"}, len(images) * 4, 2, (2, 2))
    crops, image_set = Crops(3, (0.3, 1.0), 4), ImageSet(tuple(images), 1, tmp_path)
    teaching = Teaching(Quarters(), image_set, crops, cache, lambda event: None)
    teaching.fill(lambda: None)
    half = PLAIN.model_copy(update={"flip_probability": 0.5})
    views = kind([half, PLAIN], PREPROCESS, 3, crops, cache)
    colourful = half.model_copy(update={"jitter": JitterSettings(), "solarize_probability": 0.5})
    changed = kind([colourful, PLAIN], PREPROCESS, 3, crops, cache)

    def of(views, epoch):
        if kind is TaughtViews:
            return views(images[5], 5, epoch)
        return tuple(x[0] for x in views(images[5:6], torch.tensor([5]), epoch))

    flips = set()
    for epoch in range(20):
        view, _, taught = of(views, epoch)
        assert type(taught) is torch.Tensor
        crop = crops(images[5], 5, crops.number(5, epoch), 16)
        plain = Quarters().maps(crop[None], (2, 2))[0]
        own = F.adaptive_avg_pool2d(view * 0.25 + 0.5, 2)
        smaller = F.adaptive_avg_pool2d(crops(images[5], 5, crops.number(5, epoch), 12) / 255, 2)
        mirrored = not torch.allclose(own, smaller, atol=1e-4)
        assert torch.allclose(own, smaller.flip(-1) if mirrored else smaller, atol=1e-4)
        wanted = plain.flip(-1) if mirrored else plain
        torch.testing.assert_close(taught, wanted, atol=1e-3, rtol=0)
        torch.testing.assert_close(of(changed, epoch)[2], taught)
        flips.add(mirrored)
    assert flips == {False, True}


def slow_dense_loss(feature_map, taught, layer):
    """The mean of one minus cosine over images and places, with maps of the same grid."""
    total, (count, _, height, width) = 0.0, taught.shape
    for n in range(count):
        for y in range(height):
            for x in range(width):
                own = layer.weight @ feature_map[n, :, y, x] + layer.bias
                wanted = taught[n, :, y, x]
                total += 1 - float(own @ wanted / own.norm() / wanted.norm())
    return total / (count * height * width)


class TestPlaces:
    @pytest.fixture
    def maps(self):
        generator = torch.Generator().manual_seed(0)
        return torch.randn(3, 6, 4, 4, generator=generator), F.normalize(
            torch.randn(3, 5, 4, 4, generator=generator), dim=1
        )

    def test_each_learns_from_its_own(self, maps):
        feature_map, taught = maps
        lesson = SecondLesson(6, 5, Lesson(5), 2.0)
        with torch.no_grad():
            expected = 2 * slow_dense_loss(feature_map, taught, lesson.head.fc2)
            assert float(lesson(feature_map, taught)) == pytest.approx(expected, rel=1e-5)
            both = lesson(feature_map.flip(3), taught.flip(3))
            torch.testing.assert_close(both, lesson(feature_map, taught))
            assert float(lesson(feature_map.flip(3), taught)) != pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize(("own", "given"), [(2, 4), (4, 2), (3, 4), (1, 4)])
    def test_the_coarser_grid_counts(self, maps, own, given):
        feature_map, taught = (
            F.adaptive_avg_pool2d(each, side) for each, side in zip(maps, (own, given), strict=True)
        )
        features, wanted = paired(feature_map, F.normalize(taught, dim=1))
        side = min(own, given)
        assert (len(features), len(wanted)) == (3 * side * side,) * 2
        torch.testing.assert_close(wanted.norm(dim=1), torch.ones(len(wanted)))
        mirrored = paired(feature_map.flip(3), F.normalize(taught, dim=1).flip(3))
        for rows, back in zip((features, wanted), mirrored, strict=True):
            there = rows.unflatten(0, (3, side, side))
            torch.testing.assert_close(back.unflatten(0, (3, side, side)).flip(2), there)

    def test_embeddings_are_compared_with_the_mean_of_the_map(self, maps):
        features, taught = paired(maps[0], maps[1][:, :, 0, 0])
        torch.testing.assert_close(features, maps[0].mean(dim=(2, 3)))
        assert torch.equal(taught, maps[1][:, :, 0, 0])


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_any_method_learns_maps(name, new_method, two_views, pinhole):
    """The loss of places falls in all subnets, whatever their resolution."""
    options = {"projector_dim": 5} if name == "distillation" else {}
    method, views = new_method(name, **options), two_views()
    torch.manual_seed(1)
    side = 8
    taught = F.normalize(torch.randn(4, 5, side, side) + 2 * torch.randn(1, 5, side, side), dim=1)
    if name != "distillation":
        length = method.query.supernet.feature_dim
        method.second_lesson = SecondLesson(length, 5, Lesson(5), 5.0)
    given = (views[0], taught) if name == "distillation" else (*views, taught)
    subnets = [pinhole.largest, pinhole.smallest]
    assert {each.resolution for each in subnets} == {12, 16}

    @torch.no_grad()
    def losses():
        found = []
        for subnet in subnets:
            method.activate(subnet)
            if method.second_lesson is None:
                found.append(float(method.loss(given, taught).value))
            else:
                feature_map, _ = method.query.encoded(views[0])
                found.append(float(method.second_lesson(feature_map, taught)))
        return found

    before = losses()
    optimizer = torch.optim.AdamW((p for p in method.parameters() if p.requires_grad), 0.01)
    for _ in range(25):
        assert sandwich_step(method, given, subnets, optimizer).finite
    assert all(after < 0.8 * first for after, first in zip(losses(), before, strict=True))


def test_complete_embeddings_are_not_computed_again(images, teaching):
    def refuse(crops):
        raise AssertionError("embedded again")

    told = []
    teaching.teacher, teaching.report = refuse, lambda event: told.append(event.message)
    teaching.fill(lambda: None)
    count = len(images)
    assert told == [f"the teacher's embeddings of {count} of {count} images are kept from before"]


def test_supernet_learns_the_targets(new_method, pinhole):
    method = new_method("distillation", projector_dim=6)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 1, 16, 16, generator=generator)
    targets = F.normalize(torch.randn(16, 6, generator=generator), dim=1)
    optimizer = torch.optim.AdamW(method.parameters(), 0.01)
    losses = []
    for _ in range(40):
        for architecture in (pinhole.largest, pinhole.smallest):
            method.activate(architecture)
            loss, embeddings, _ = method.loss((images, targets), targets)
            assert embeddings.shape == (16, 6)
            loss.backward()
            losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])


def test_head_begins_where_a_linear_map_of_the_features_ends():
    """It finds the map that made the targets, from features of two lengths, at its former scale."""
    generator = torch.Generator().manual_seed(0)
    head = Projector(6, None, 3, False)
    fresh = head.fc2.weight.detach().norm()
    weight = torch.randn(3, 4, generator=generator)
    features = [torch.randn(16, length, generator=generator) for length in (6, 4) * 5]
    taught = [F.normalize(each[:, :4] @ weight.T, dim=1) for each in features]
    fit_head(head, features, taught)
    new = torch.randn(200, 4, generator=generator)
    wanted = F.normalize(new @ weight.T, dim=1)
    with torch.no_grad():
        found = float(cosine_distance(head(new), wanted))
    assert found < 0.05 < float(cosine_distance(torch.roll(wanted, 1, 0), wanted))
    torch.testing.assert_close(head.fc2.weight.detach().norm(), fresh)
