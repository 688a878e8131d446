"""Which share of an epoch waits for images, and which makes views of them."""

import time
from pathlib import Path

import pytest
import torch

from edgesearch.data.image_set import ImageSet
from edgesearch.data.preprocess import Preprocess
from edgesearch.pretrain.epoch_timer import EpochTimer
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.views import Augmentation

IMAGES = ImageSet(torch.zeros(6, 1, 8, 8, dtype=torch.uint8).unbind(), 1, Path("zeros"))


class Clock:
    """Seconds that pass where a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def slowed(self, function, seconds):
        def slow(*args):
            self.now += seconds
            return function(*args)

        return slow


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def loader_of(batched):
    recipes, rule = (Augmentation(),) * 2, Preprocess(8, 1, (0.5,), (0.5,))
    options = {"batched": batched, "batch_size": 2, "seed": 0, "workers": 0}
    return make_loader(IMAGES, recipes, rule, **options)


def timed(loader, clock, epoch=0):
    timer = EpochTimer(loader, processes=3)
    for _ in timer.batches(epoch, 0):
        clock.now += 2.0
    return timer


def test_views_of_batches_are_no_waiting(clock):
    loader = loader_of(batched=True)
    loader.views = clock.slowed(loader.views, 1.0)
    for epoch in range(2):  # counted anew in each
        timer = timed(loader, clock, epoch)
        assert (timer.duration_s, timer.data_wait) == (9.0, 0.0)
        assert timer.augmenting == pytest.approx(1 / 3)
        assert timer.images_per_s == 2


def test_what_else_takes_time_before_a_batch_is_waiting(clock, monkeypatch):
    loader = loader_of(batched=True)
    loader.views = clock.slowed(loader.views, 1.0)
    name = "edgesearch.pretrain.loader.order_of_epoch"
    order = loader.batches.__func__.__globals__["order_of_epoch"]
    monkeypatch.setattr(name, clock.slowed(order, 3.0))
    timer = timed(loader, clock)
    assert (timer.data_wait, timer.augmenting) == (0.25, 0.25)


def test_views_of_single_images_are_waited_for(clock):
    loader = loader_of(batched=False)
    loader.views.transforms = [clock.slowed(each, 0.5) for each in loader.views.transforms]
    timer = timed(loader, clock)
    assert timer.data_wait == pytest.approx(0.5)
    assert timer.augmenting == 0
