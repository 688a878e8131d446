"""The loss against a slow one written independently, and the weak views of the teacher."""

import math

import pytest
import torch

from edgesearch.pretrain.ressl import relation, relation_loss
from edgesearch.pretrain.settings import AugmentationSettings


def slow_relation(row, queue, temperature):
    scores = [
        math.exp(sum(a * b for a, b in zip(row, key, strict=True)) / temperature)
        for key in queue.T.tolist()
    ]
    return [score / sum(scores) for score in scores]


def slow_loss(students, teachers, queue, temperature, teacher_temperature):
    total = 0.0
    for student, teacher in zip(students.tolist(), teachers.tolist(), strict=True):
        p = slow_relation(teacher, queue, teacher_temperature)
        q = slow_relation(student, queue, temperature)
        total -= sum(a * math.log(b) for a, b in zip(p, q, strict=True))
    return total / len(students)


class TestLoss:
    @pytest.fixture
    def parts(self, embeddings_of):
        return embeddings_of(6, 5), embeddings_of(6, 5, seed=1), embeddings_of(9, 5, seed=2).T

    @pytest.mark.parametrize("temperature", [0.1, 0.3])
    def test_equals_the_slow_loss(self, parts, temperature):
        students, teachers, queue = parts
        found = relation_loss(
            relation(students, queue, temperature), relation(teachers, queue, 0.04)
        )
        expected = slow_loss(students, teachers, queue, temperature, 0.04)
        assert float(found) == pytest.approx(expected, rel=1e-4)

    def test_order_of_the_queue_does_not_matter(self, parts):
        students, teachers, queue = parts
        losses = [
            relation_loss(relation(students, q, 0.1), relation(teachers, q, 0.04))
            for q in (queue, queue.flip(1))
        ]
        torch.testing.assert_close(*losses)

    def test_is_least_where_the_student_finds_what_the_teacher_does(self, parts):
        students, teachers, queue = parts
        teacher = relation(teachers, queue, 0.1)
        least = relation_loss(teacher, teacher)
        assert least < relation_loss(relation(students, queue, 0.1), teacher)


def test_student_sees_the_first_views_and_teacher_the_second(new_method, two_views):
    method, views = new_method("ressl"), two_views()
    targets = method.targets(views)
    torch.testing.assert_close(targets.keys, method.key(views[1]))
    loss, embeddings, _ = method.loss(views, targets)
    queue = method.queue.keys
    expected = slow_loss(embeddings.detach(), targets.keys, queue, 0.1, 0.04)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_keys_of_the_teacher_go_into_the_queue(new_method, two_views):
    method = new_method("ressl")
    targets = method.targets(two_views())
    method.after_step(targets, 0.0)
    assert torch.equal(method.queue.keys[:, :4], targets.keys.T)


def test_views_of_the_teacher_are_weak(new_method):
    asked = AugmentationSettings(
        crop_scale=(0.3, 1.0), flip_probability=0.2, solarize_probability=0.1
    )
    strong, weak = new_method("ressl").views(asked)
    assert strong == asked
    assert (weak.crop_scale, weak.flip_probability) == ((0.3, 1.0), 0.2)
    others = ("grayscale", "blur", "solarize")
    assert [getattr(weak, f"{name}_probability") for name in others] == [0.0] * 3
    assert weak.jitter.probability == 0
