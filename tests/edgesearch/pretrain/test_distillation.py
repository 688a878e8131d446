"""Distillation: the loss, the crops that a teacher and its students share, and a whole training."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgesearch.data.image_set import ImageSet
from edgesearch.data.preprocess import Preprocess
from edgesearch.pretrain.distillation import cosine_distance
from edgesearch.pretrain.settings import AugmentationSettings
from edgesearch.pretrain.taught_views import BatchedTaughtViews, Crops, TaughtViews, Teaching
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


def test_student_and_teacher_see_the_same_crop(images, teaching):
    """The embedding is that of the crop that the view shows, at another resolution."""
    views = TaughtViews(PLAIN, PREPROCESS, 3, teaching.crops, teaching.cache)
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
    batched = BatchedTaughtViews(PLAIN, PREPROCESS, 3, teaching.crops, teaching.cache)
    single = TaughtViews(PLAIN, PREPROCESS, 3, teaching.crops, teaching.cache)
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
            views = kind(augmentation, PREPROCESS, 3, teaching.crops, teaching.cache)
            if kind is TaughtViews:
                pair.append(views(images[2], 2, 1))
            else:
                pair.append(views(images[2:3], torch.tensor([2]), 1))
        torch.testing.assert_close(pair[0][0].flip(-1), pair[1][0])
        torch.testing.assert_close(pair[0][1], pair[1][1])


def test_complete_embeddings_are_not_computed_again(teaching):
    def refuse(images):
        raise AssertionError("embedded again")

    teaching.teacher = refuse
    teaching.fill(lambda: None)


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
            loss, embeddings = method.loss((images, targets), None)
            assert embeddings.shape == (16, 6)
            loss.backward()
            losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
