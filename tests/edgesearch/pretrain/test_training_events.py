"""What is told of a training while it runs."""

import pytest

from edgesearch.pretrain.epoch_report import EpochReport, StepReport
from edgesearch.pretrain.training_events import TrainingTeller


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
    teller = TrainingTeller(events.append, workers)
    for epoch in epochs:
        teller.epoch(epoch)
    return [event.message for event in events]


def test_a_step():
    events = []
    TrainingTeller(events.append, 2).step(step_of())
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


def test_replaced_images():
    (message,) = told(2, epoch_of(replaced_images=7))
    assert message.endswith(", 7 unreadable images replaced by others")


def test_a_collapse_is_told_once():
    events = []
    teller = TrainingTeller(events.append, 2)
    for number in (1, 2, 3):
        teller.step(step_of(number, spread=0.004, collapsed=number > 1))
    teller.epoch(epoch_of(collapsed=True))
    messages = [event.message for event in events]
    assert len(messages) == 5
    assert messages[2].startswith(
        "the embeddings of all images have become the same (spread 0.0040"
    )
