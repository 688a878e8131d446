"""Lines for each epoch and curves for TensorBoard, whatever a stop leaves behind."""

import json
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from devices.errors import FileError
from edgesearch.errors import TrainingError
from edgesearch.pretrain.progress import EpochReport
from edgesearch.training.run_log import RunLog


def report_of(epoch, loss=None, monitor=None, best_epoch=None):
    return EpochReport(
        epoch=epoch,
        epochs=9,
        loss_largest=epoch / 10 if loss is None else loss,
        loss_smallest=None if epoch == 1 else epoch / 5,
        loss_random=1.5,
        spread=0.25,
        collapsed=False,
        lr=0.5 / epoch,
        duration_s=2.0,
        images_per_s=64.0 * epoch,
        data_wait=0.125,
        augmenting=0.25,
        replaced_images=0,
        monitor=monitor or {},
        best_epoch=best_epoch,
    )


def write(folder, done, reports, **options):
    log = RunLog(folder, **options)
    log.begin(done)
    for report in reports:
        log.write(report)
    log.close()


def curves_of(folder):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_curves_come_back(tmp_path):
    reports = [report_of(1), report_of(2, monitor={"knn_largest": 0.5, "knn_smallest": 0.25})]
    write(tmp_path, 0, reports, tensorboard=True)
    assert curves_of(tmp_path) == {
        "loss/largest": [(1, pytest.approx(0.1)), (2, pytest.approx(0.2))],
        "loss/smallest": [(2, pytest.approx(0.4))],
        "loss/random": [(1, 1.5), (2, 1.5)],
        "spread": [(1, 0.25), (2, 0.25)],
        "lr": [(1, 0.5), (2, 0.25)],
        "speed/images_per_s": [(1, 64), (2, 128)],
        "speed/data_wait": [(1, 0.125), (2, 0.125)],
        "speed/augmenting": [(1, 0.25), (2, 0.25)],
        "monitor/knn_largest": [(2, 0.5)],
        "monitor/knn_smallest": [(2, 0.25)],
    }


def test_epochs_that_are_run_again_stand_there_once(tmp_path):
    write(tmp_path, 0, [report_of(1), report_of(2), report_of(3)], tensorboard=True)
    write(tmp_path, 1, [report_of(2, 7.0), report_of(3, 8.0), report_of(4, 9.0)], tensorboard=True)
    assert curves_of(tmp_path)["loss/largest"] == [(1, pytest.approx(0.1)), (2, 7), (3, 8), (4, 9)]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [line["loss_largest"] for line in lines] == [0.1, 7.0, 8.0, 9.0]


def test_tensorboard_that_is_missing_is_said(tmp_path, monkeypatch):
    for name in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    message = "the package tensorboard for pretrain.tensorboard=true; found: .*pip install tensor"
    with pytest.raises(TrainingError, match=message):
        RunLog(tmp_path, tensorboard=True)


def test_the_best_epoch_is_the_first_with_the_highest_mean(tmp_path):
    log = RunLog(tmp_path)
    log.begin(0)
    assert log.best_epoch(1, {}) is None
    found = ({"a": 0.5, "b": 0.25}, {}, {"a": 1.0, "b": 0.5}, {"a": 0.5, "b": 1.0}, {"a": 0.9})
    assert [log.best_epoch(epoch, each) for epoch, each in enumerate(found, 2)] == [2, 2, 4, 4, 6]


def test_the_best_epoch_outlives_a_stop_and_forgets_what_is_run_again(tmp_path):
    write(tmp_path, 0, [report_of(1, monitor={"a": 0.5}), report_of(2, monitor={"a": 0.9})])
    for done, best in ((2, 2), (1, 1)):
        log = RunLog(tmp_path)
        log.begin(done)
        assert log.best_epoch(3, {"a": 0.1}) == best


def test_a_damaged_line_is_named_and_can_be_removed(tmp_path):
    write(tmp_path, 0, [report_of(1), report_of(2), report_of(3)])
    path = tmp_path / "metrics.jsonl"
    first, second, third = path.read_text("utf-8").splitlines()
    path.write_text(f"{first}\n{second[:30]}\n{third}\n", "utf-8")
    with pytest.raises(FileError, match=r"line 2: .*Remove this line: only what is shown"):
        RunLog(tmp_path).begin(3)
    path.write_text(f"{first}\n{third}\n", "utf-8")
    write(tmp_path, 2, [report_of(3, 7.0)])  # its own line, not the third of the file
    lines = [json.loads(line) for line in path.open()]
    assert [(line["epoch"], line["loss_largest"]) for line in lines] == [(1, 0.1), (3, 7.0)]
