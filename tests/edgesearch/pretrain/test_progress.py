"""Where a training stands, how fast it goes, and what is told of it."""

import time
from pathlib import Path

import pytest
import torch

from edgesearch.data.image_set import ImageSet
from edgesearch.data.preprocess import Preprocess
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.progress import (
    EpochReport,
    EpochTimer,
    Progress,
    StepReport,
    TrainingReporter,
)
from edgesearch.pretrain.sandwich import StepResult
from edgesearch.pretrain.settings import PretrainSettings
from edgesearch.training.randomness import order_of_epoch

IMAGES = ImageSet(torch.zeros(6, 1, 8, 8, dtype=torch.uint8).unbind(), 1, Path("zeros"))


def first_collapsed(steps, spreads):
    """The step at which a collapse is seen first, None if it is not."""
    progress = Progress()
    for number, spread in enumerate(spreads):
        progress.add(StepResult([1.0], spread, True))
        if progress.collapsed(steps):
            return number
        if progress.step == steps:
            progress = progress.next_epoch()
    return None


@pytest.mark.parametrize(
    ("steps", "apart", "seen"),
    [
        (5000, 0, 299),  # not in the first steps
        (5000, 150, 299),
        (5000, 3000, 3099),
        (5000, 4950, 5049),  # over an epoch's end
        (22, 0, 21),
        (22, 30, 51),
        (150, 10, 149),
    ],
)
def test_after_a_hundred_steps_or_an_epoch(steps, apart, seen):
    spreads = [0.03] * apart + [0.004] * 400
    assert first_collapsed(steps, spreads) == seen


def test_not_while_a_step_between_is_apart():
    assert first_collapsed(5000, ([0.004] * 99 + [0.011]) * 20) is None


def test_not_when_it_goes_by_in_the_first_steps():
    assert first_collapsed(5000, [0.004] * 290 + [0.02] * 1000) is None


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
    settings = PretrainSettings(batch_size=2, workers=0, augmentation={"batched": batched})
    views, rule = (settings.augmentation,) * 2, Preprocess(8, 1, (0.5,), (0.5,))
    return make_loader(IMAGES, views, rule, settings, 0)


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
    monkeypatch.setattr(name, clock.slowed(order_of_epoch, 3.0))
    timer = timed(loader, clock)
    assert (timer.data_wait, timer.augmenting) == (0.25, 0.25)


def test_views_of_single_images_are_waited_for(clock):
    loader = loader_of(batched=False)
    loader.views.transforms = [clock.slowed(each, 0.5) for each in loader.views.transforms]
    timer = timed(loader, clock)
    assert timer.data_wait == pytest.approx(0.5)
    assert timer.augmenting == 0


def epoch_of(number=4, **values):
    whole = {
        "epoch": number,
        "epochs": 9,
        "loss_largest": 5.25,
        "loss_smallest": 5.5,
        "loss_random": None,
        "spread": 0.5,
        "collapsed": False,
        "lr": 0.1,
        "duration_s": 2.0,
        "images_per_s": 1234.4,
        "data_wait": 0.05,
        "augmenting": 0.0,
        "replaced_images": 0,
    }
    return EpochReport(**{**whole, **values})


def step_of(number=120, **values):
    whole = {
        "epoch": 3,
        "epochs": 20,
        "step": number,
        "steps": 400,
        "loss": 5.1234,
        "images_per_s": 511.7,
        "remaining_s": 11400.4,
        "spread": 0.5,
        "collapsed": False,
    }
    return StepReport(**{**whole, **values})


def told(workers, *epochs):
    events = []
    teller = TrainingReporter(events.append, workers)
    for epoch in epochs:
        teller.epoch(epoch)
    return [event.message for event in events]


def test_a_step():
    events = []
    TrainingReporter(events.append, 2).step(step_of())
    (event,) = events
    assert event.message == "epoch 3, loss 5.123, 512 images/s, 3:10:00 left of the run"
    assert (event.stage, event.done, event.total, event.within) == ("pretrain", 120, 400, True)


def test_an_epoch():
    message = "loss 5.250 largest, 5.500 smallest, 1,234 images/s, 5% waiting for data"
    assert told(2, epoch_of()) == [message]


def test_an_epoch_tells_augmenting_from_waiting():
    (message,) = told(None, epoch_of(augmenting=0.123))
    assert message.endswith("images/s, 5% waiting for data, 12% augmenting")


def test_an_epoch_with_a_monitor_names_the_best():
    (message,) = told(2, epoch_of(monitor={"knn_largest": 0.5, "knn_smallest": 0.25}, best_epoch=2))
    assert "knn_largest 0.500, knn_smallest 0.250, best in epoch 2, 1,234 images/s" in message


@pytest.mark.parametrize(
    ("workers", "data_wait", "remedy"), [(3, 0.21, True), (3, 0.2, False), (None, 0.9, False)]
)
def test_a_long_wait_for_data_says_what_to_do(workers, data_wait, remedy):
    (message,) = told(workers, epoch_of(data_wait=data_wait))
    assert f"{data_wait:.0%} waiting for data" in message
    assert ("more than 3 pretrain.workers" in message) == remedy
    assert ("pretrain.augmentation.batched=true" in message) == remedy


def test_a_long_wait_is_told_each_epoch_and_advised_once():
    events = []
    teller = TrainingReporter(events.append, 3)
    for _ in range(3):
        teller.epoch(epoch_of(data_wait=0.5))
    assert ["50% waiting for data" in event.message for event in events] == [True] * 3
    assert ["pretrain.workers" in event.message for event in events] == [True, False, False]


def test_replaced_images():
    (message,) = told(2, epoch_of(replaced_images=7))
    assert message.endswith(", 7 unreadable images replaced by others")


def test_a_collapse_is_told_once():
    events = []
    teller = TrainingReporter(events.append, 2)
    for number in (1, 2, 3):
        teller.step(step_of(number, spread=0.004, collapsed=number > 1))
    teller.epoch(epoch_of(collapsed=True))
    messages = [event.message for event in events]
    assert len(messages) == 5
    assert messages[2].startswith("embeddings collapsed (spread 0.0040")
