"""Runs of many hours: saved within an epoch, killed at any step, spoilt, and judged as they go."""

import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import cloudpickle  # comes with nni
import pytest
import torch

from edgesearch.data.open_images import open_images
from edgesearch.data.preprocess import Preprocess
from edgesearch.data.settings import DataSettings
from edgesearch.errors import Interrupted, TrainingError
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.pretrain.checkpoint import save_state
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.moco_v2 import MoCoV2
from edgesearch.pretrain.trainer import Trainer
from edgesearch.pretrain.trainer_config import TrainerConfig
from edgesearch.pretrain.views import Augmentation

SPACE = ResNetSpace(
    name="one stage",
    block="basic",
    stem="small",
    stem_widths=(4,),
    stage_widths=((4, 8),),
    stage_depths=((1,),),
    resolutions=(8,),
    in_channels=1,
)
IMAGES = open_images(DataSettings(source="digits"), 1).train.subset(range(32))
STEPS, EPOCHS = 4, 3
EACH_STEP = 1e-9
"""Minutes between states so short that each step leaves one."""


class HookedLoader:
    """A loader whose batches can be preceded by something."""

    def __init__(self, loader, happenings):
        self.loader = loader
        self.happenings = happenings
        self.steps_per_epoch = loader.steps_per_epoch
        self.replaced = self.views_s = 0

    def batches(self, epoch, first_step):
        for step, views in enumerate(self.loader.batches(epoch, first_step), first_step):
            self.happenings.get((epoch, step), lambda: None)()
            yield views


def make_trainer(folder, happenings=None, *, workers=None, temperature=0.2, config=None, **options):
    """A training of 3 epochs of 4 steps; the keyword arguments are those of the trainer."""
    loader = make_loader(
        IMAGES,
        (Augmentation(flip_probability=0.0),) * 2,
        Preprocess(8, 1, (0.3,), (0.37,)),
        batched=workers is None,
        batch_size=8,
        seed=0,
        workers=workers or 0,
    )
    assert loader.steps_per_epoch == STEPS
    sizes = {"queue_size": 8, "projector_hidden_dim": 8, "projector_dim": 4}
    method = MoCoV2(SPACE, **sizes, ema_momentum=0.9, temperature=temperature, projector_bn=True)
    settings = {"epochs": EPOCHS, "lr": 0.05, "monitor_every_epochs": 1, **(config or {})}
    hooked = HookedLoader(loader, happenings or {})
    return Trainer(method, hooked, TrainerConfig(**settings), folder, **{"identity": {}, **options})


def stop():
    signal.raise_signal(signal.SIGTERM)


def kill_myself():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_a_worker():
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    time.sleep(60)  # until the death is told, which raises here


def in_a_process(task):
    """Run a task in a fresh interpreter, and say how it ended."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    code = (
        "import sys, cloudpickle, torch; torch.set_num_threads(1); "
        "cloudpickle.loads(sys.stdin.buffer.read())()"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, input=cloudpickle.dumps(task), timeout=600).returncode


def metrics_of(folder):
    timed = ("duration_s", "images_per_s", "data_wait", "augmenting")
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def assert_same_end(folder, undisturbed):
    assert metrics_of(folder) == metrics_of(undisturbed)
    names = ("model.safetensors", "best.safetensors")
    for name in names:
        assert (folder / name).exists() == (undisturbed / name).exists()
        if (folder / name).exists():
            assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
    state, expected = (torch.load(each / "state.pt") for each in (folder, undisturbed))
    assert state["progress"] == expected["progress"]
    assert all(torch.equal(state["method"][k], v) for k, v in expected["method"].items())
    for key, value in expected["optimizer"]["state"].items():
        buffer = state["optimizer"]["state"][key]["momentum_buffer"]
        assert torch.equal(buffer, value["momentum_buffer"])


def stands_at(path):
    progress = torch.load(path)["progress"]
    return progress["epoch"], progress["step"]


class TestSavedByTime:
    @pytest.mark.parametrize(
        ("minutes", "states"),
        [
            (EACH_STEP, [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]),
            (60, [(1, 0), (2, 0)]),
        ],
    )
    def test_within_an_epoch_when_it_is_time(self, tmp_path, minutes, states):
        seen = []

        def look():
            if (tmp_path / "state.pt").exists():
                seen.append(stands_at(tmp_path / "state.pt"))

        moments = {(epoch, step): look for epoch in range(EPOCHS) for step in range(STEPS)}
        config = {"epochs": EPOCHS, "checkpoint_minutes": minutes}
        make_trainer(tmp_path, moments, config=config).fit()
        assert list(dict.fromkeys(seen))[: len(states)] == states

    def test_the_time_begins_anew_with_each_state(self, tmp_path, monkeypatch):
        now, saved = 0.0, []

        def ten_seconds_later():
            nonlocal now
            now += 10

        def noted(path, state):
            saved.append((state["progress"]["epoch"], state["progress"]["step"]))
            save_state(path, state)

        monkeypatch.setattr("edgesearch.pretrain.trainer.time.monotonic", lambda: now)
        monkeypatch.setattr("edgesearch.pretrain.trainer.save_state", noted)
        moments = {(e, step): ten_seconds_later for e in range(EPOCHS) for step in range(STEPS)}
        make_trainer(tmp_path, moments, config={"checkpoint_minutes": 0.5}).fit()
        assert saved == [(0, 3), (1, 0), (1, 3), (2, 0), (2, 3), (3, 0)]

    def test_killed_it_goes_on_from_there(self, tmp_path):
        config = {"checkpoint_minutes": EACH_STEP}
        code = in_a_process(
            lambda: make_trainer(tmp_path / "a", {(1, 2): kill_myself}, config=config).fit()
        )
        assert code == -signal.SIGKILL
        assert stands_at(tmp_path / "a" / "state.pt") == (1, 2)

        def fail():
            raise AssertionError("trained again")

        make_trainer(tmp_path / "a", {(1, 1): fail}).fit()
        make_trainer(tmp_path / "b").fit()
        assert_same_end(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [EACH_STEP, 60])
def test_killed_at_random_steps_with_workers(tmp_path, minutes):
    """Six kills, each at a step of its own, on the way to the same bits."""
    moments = [(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]
    kills = sorted(random.SystemRandom().sample(moments, 6))
    print("killed before", kills)
    killed, whole = tmp_path / "killed", tmp_path / "whole"

    def task(moment=None):
        happenings, config = {moment: kill_myself}, {"checkpoint_minutes": minutes}
        return lambda: make_trainer(killed, happenings, workers=2, config=config).fit()

    assert {in_a_process(task(moment)) for moment in kills} == {-signal.SIGKILL}
    assert in_a_process(task()) == 0
    assert in_a_process(lambda: make_trainer(whole, workers=2).fit()) == 0
    assert_same_end(killed, whole)


class TestDeadWorker:
    def test_is_said_and_nothing_is_lost(self, tmp_path):
        def task():
            try:
                make_trainer(tmp_path / "a", {(1, 1): kill_a_worker}, workers=2).fit()
            except TrainingError as error:
                (tmp_path / "said").write_text(f"{error}")
                os._exit(7)

        assert in_a_process(task) == 7
        said = (tmp_path / "said").read_text()
        assert "processes that load images (pretrain.workers)" in said
        assert "found: DataLoader worker (pid" in said
        assert "set fewer pretrain.workers" in said
        assert stands_at(tmp_path / "a" / "state.pt") == (1, 1)
        make_trainer(tmp_path / "a", workers=0).fit()
        make_trainer(tmp_path / "b", workers=0).fit()
        assert_same_end(tmp_path / "a", tmp_path / "b")

    def test_between_steps_leaves_the_state_of_the_last_one(self, tmp_path):
        def die():
            raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")

        with pytest.raises(TrainingError, match="found: DataLoader worker .pid 12. is killed by"):
            make_trainer(tmp_path, {(1, 2): die}).fit()
        assert stands_at(tmp_path / "state.pt") == (1, 2)

    def test_within_a_step_leaves_the_state_before(self, tmp_path):
        trainer = make_trainer(tmp_path)

        def die(*_):
            if trainer.progress.epoch == 1 and trainer.progress.step == 2:
                raise RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly")

        trainer.optimizer.register_step_post_hook(die)
        with pytest.raises(TrainingError, match="exited unexpectedly"):
            trainer.fit()
        assert stands_at(tmp_path / "state.pt") == (1, 0)

    def test_another_error_stays_what_it_is(self, tmp_path):
        def fail():
            raise RuntimeError("something else")

        with pytest.raises(RuntimeError, match="^something else$"):
            make_trainer(tmp_path, {(0, 1): fail}).fit()


class TestBadWeights:
    @pytest.mark.parametrize("at", [(1, 3), (1, 1)])
    def test_never_replace_good_ones(self, tmp_path, at):
        trainer = make_trainer(tmp_path, config={"checkpoint_minutes": EACH_STEP})

        def spoil(*_):
            if (trainer.progress.epoch, trainer.progress.step) == at:
                next(trainer.method.parameters()).data.view(-1)[0] = math.nan

        trainer.optimizer.register_step_post_hook(spoil)
        step = at[0] * STEPS + at[1]
        message = f"finite weights; found: others in .* after step {step}"
        with pytest.raises(TrainingError, match=message):
            trainer.fit()
        assert stands_at(tmp_path / "state.pt") == at
        for tensor in torch.load(tmp_path / "state.pt")["method"].values():
            assert tensor.isfinite().all()
        assert len(metrics_of(tmp_path)) == 1
        make_trainer(tmp_path).fit()
        make_trainer(tmp_path / "b").fit()
        assert_same_end(tmp_path, tmp_path / "b")


class TestBest:
    MONITORED = ({"a": 0.2, "b": 0.4}, {"a": 0.9, "b": 0.7}, {"a": 0.95, "b": 0.5})

    def trainer(self, folder, happenings=None):
        trainer = make_trainer(folder, happenings)
        trainer.monitor = lambda _: dict(self.MONITORED[trainer.progress.epoch])
        return trainer

    def test_is_that_of_the_highest_mean(self, tmp_path):
        kept = {}
        trainer = self.trainer(tmp_path)
        trainer.on_epoch = lambda report: kept.update(
            {report.epoch: (tmp_path / "model.safetensors").read_bytes()}
        )
        trainer.fit()
        assert [line["best_epoch"] for line in metrics_of(tmp_path)] == [1, 2, 2]
        assert (tmp_path / "best.safetensors").read_bytes() == kept[2]
        assert (tmp_path / "model.safetensors").read_bytes() == kept[3] != kept[2]

    @pytest.mark.parametrize("moment", [(1, 1), (1, 3), (2, 0)])
    def test_is_the_same_after_a_stop(self, tmp_path, moment):
        with pytest.raises(Interrupted):
            self.trainer(tmp_path / "a", {moment: stop}).fit()
        self.trainer(tmp_path / "a").fit()
        self.trainer(tmp_path / "b").fit()
        assert_same_end(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "a" / "best.safetensors").exists()

    def test_is_the_same_after_a_kill_between_it_and_the_state(self, tmp_path, monkeypatch):
        trainer = self.trainer(tmp_path / "a")
        save = trainer._save_state

        def killed():
            if trainer.progress.epoch == 2:
                raise KeyboardInterrupt
            save()

        monkeypatch.setattr(trainer, "_save_state", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
        self.trainer(tmp_path / "a").fit()
        self.trainer(tmp_path / "b").fit()
        assert_same_end(tmp_path / "a", tmp_path / "b")

    def test_there_is_none_without_a_monitor(self, tmp_path):
        make_trainer(tmp_path).fit()
        assert not (tmp_path / "best.safetensors").exists()
        assert [line["best_epoch"] for line in metrics_of(tmp_path)] == [None] * EPOCHS


class TestSteps:
    def test_are_reported_with_what_is_left(self, tmp_path, monkeypatch):
        now, reports = 0.0, []

        def two_seconds_later():
            nonlocal now
            now += 2

        monkeypatch.setattr("edgesearch.pretrain.trainer.time.monotonic", lambda: now)
        moments = {(e, step): two_seconds_later for e in range(EPOCHS) for step in range(STEPS)}
        make_trainer(tmp_path, moments, on_step=reports.append).fit()
        expected = [(epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3, 4)]
        assert [(report.epoch, report.step) for report in reports] == expected
        assert {(report.epochs, report.steps) for report in reports} == {(EPOCHS, STEPS)}
        assert [report.remaining_s for report in reports] == [2 * (11 - i) for i in range(12)]
        assert all(report.images_per_s > 0 for report in reports)
        lines = metrics_of(tmp_path)
        assert [report.loss for report in reports[3::4]] == [line["loss_largest"] for line in lines]

    def test_the_share_that_waits_for_data_is_measured(self, tmp_path, monkeypatch):
        now = 0.0

        def pass_time(seconds):
            nonlocal now
            now += seconds

        monkeypatch.setattr("edgesearch.pretrain.epoch_timer.time.perf_counter", lambda: now)
        moments = {(1, step): lambda: pass_time(3.0) for step in range(STEPS)}
        trainer = make_trainer(tmp_path, moments)
        trainer.optimizer.register_step_post_hook(lambda *_: pass_time(1.0))
        trainer.fit()
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
        assert [line["data_wait"] for line in lines] == [0, 0.75, 0]
        assert [line["duration_s"] for line in lines] == [4, 16, 4]
        assert lines[1]["images_per_s"] == 2


def test_replaced_images_are_counted_over_a_stop(tmp_path):
    def trainer(folder, happenings=None):
        trainer = make_trainer(folder, happenings)
        batches = trainer.loader.batches

        def counted(epoch, first_step):
            trainer.loader.replaced = 0
            for views in batches(epoch, first_step):
                trainer.loader.replaced += 1
                yield views

        trainer.loader.batches = counted
        return trainer

    with pytest.raises(Interrupted):
        trainer(tmp_path, {(1, 1): stop}).fit()
    trainer(tmp_path).fit()
    assert [line["replaced_images"] for line in metrics_of(tmp_path)] == [STEPS] * EPOCHS


def test_another_way_to_compute_is_said(tmp_path):
    with pytest.raises(Interrupted):
        make_trainer(tmp_path, {(0, 1): stop}).fit()
    state = torch.load(tmp_path / "state.pt")
    save_state(tmp_path / "state.pt", {**state, "threads": 5, "accumulation": 2})
    told = []
    make_trainer(tmp_path, notice=told.append).fit()
    accumulation, threads = told
    assert "begun with pretrain.accumulation 2 and goes on with 1: its results" in accumulation
    assert "begun with 5 threads and goes on with 1: its last digits will differ" in threads
