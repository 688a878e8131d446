"""Training runs: stopped in every way, and gone on with to exactly the same end."""

import json
import math
import os
import random
import signal
import subprocess
import sys

import cloudpickle  # comes with nni
import pytest
import torch
from safetensors.torch import load_file

from edgesearch.data.open_images import open_images
from edgesearch.data.preprocess import Preprocess
from edgesearch.data.settings import DataSettings
from edgesearch.errors import CheckpointError, Interrupted, TrainingError
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.moco_v2 import MoCoV2
from edgesearch.pretrain.sandwich import sandwich_step
from edgesearch.pretrain.trainer import Trainer
from edgesearch.pretrain.trainer_config import TrainerConfig
from edgesearch.pretrain.views import Augmentation
from edgesearch.supernet.weights import SupernetWeights

SPACE = ResNetSpace(
    name="pinhole",
    block="basic",
    stem="small",
    stem_widths=(4, 8),
    stage_widths=((4, 8), (8, 16)),
    stage_depths=((1, 2), (1, 2)),
    resolutions=(12, 16),
    in_channels=1,
)
IMAGES = open_images(DataSettings(source="digits"), 1).train.subset(range(128))
STEPS = 4
CONFIG = TrainerConfig(epochs=3, lr=0.05, warmup_epochs=1)
IDENTITY = {"space": SPACE.space_hash, "seed": 0}


class HookedLoader:
    """A loader with something to happen before a batch of (epoch, step)."""

    def __init__(self, loader, happenings):
        self.loader = loader
        self.happenings = happenings
        self.steps_per_epoch = loader.steps_per_epoch
        self.replaced = self.views_s = 0

    def batches(self, epoch, first_step):
        for step, views in enumerate(self.loader.batches(epoch, first_step), first_step):
            yield self.happenings.get((epoch, step), lambda views: views)(views) or views


def make_trainer(folder, happenings=None, *, config=CONFIG, workers=None, **options):
    loader = make_loader(
        IMAGES,
        (Augmentation(flip_probability=0.0),) * 2,
        Preprocess(16, 1, (0.3,), (0.37,)),
        batched=workers is None,
        batch_size=32,
        seed=config.seed,
        workers=workers or 0,
    )
    assert loader.steps_per_epoch == STEPS
    method = MoCoV2(
        SPACE,
        queue_size=32,
        ema_momentum=0.9,
        projector_hidden_dim=16,
        projector_dim=8,
        projector_bn=True,
    )
    hooked = HookedLoader(loader, happenings or {})
    return Trainer(method, hooked, config, folder, **{"identity": IDENTITY, **options})


def send(number):
    def happening(_):
        signal.raise_signal(number)

    return happening


def metrics_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    timed = ("duration_s", "images_per_s", "data_wait", "augmenting")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def assert_same_end(folder, undisturbed):
    """Every bit of weights, queue and optimizer, and one line of metrics for each epoch."""
    assert metrics_of(folder) == metrics_of(undisturbed)
    names = ("model.safetensors", "state.pt", "state.previous.pt", "metrics.jsonl")
    assert sorted(os.listdir(folder)) == sorted(names)
    weights, expected = (load_file(f / "model.safetensors") for f in (folder, undisturbed))
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    state, expected = (torch.load(f / "state.pt") for f in (folder, undisturbed))
    assert state["progress"] == expected["progress"]
    assert all(torch.equal(state["method"][k], v) for k, v in expected["method"].items())
    buffers, expected = (s["optimizer"]["state"] for s in (state, expected))
    assert len(buffers) == len(expected) > 0
    for key, value in expected.items():
        assert torch.equal(buffers[key]["momentum_buffer"], value["momentum_buffer"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    make_trainer(folder).fit()
    return folder


class TestWholeRun:
    def test_leaves_weights_metrics_and_state(self, tmp_path):
        reports = []
        weights = make_trainer(tmp_path / "deep" / "run", on_epoch=reports.append).fit()
        folder = tmp_path / "deep" / "run"
        loaded = SupernetWeights.load(folder / "model.safetensors", SPACE)
        for name in ("query", "query_projector", "key", "key_projector"):
            state, expected = getattr(loaded, name), getattr(weights, name)
            assert all(torch.equal(state[key], expected[key]) for key in expected)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
        assert lines == [vars(report) for report in reports]
        assert [report.epoch for report in reports] == [1, 2, 3]
        for report in reports:
            assert report.epochs == 3
            assert report.images_per_s == pytest.approx(128 / report.duration_s)
            losses = (report.loss_largest, report.loss_smallest, report.loss_random)
            assert all(0 < loss < 20 for loss in losses)

    def test_is_the_same_whatever_the_random_state(self, tmp_path, undisturbed):
        torch.manual_seed(99)
        random.seed(99)
        state = torch.get_rng_state()
        make_trainer(tmp_path).fit()
        assert torch.equal(torch.get_rng_state(), state)
        assert_same_end(tmp_path, undisturbed)

    def test_another_seed_is_another_run(self, tmp_path, undisturbed):
        make_trainer(tmp_path, config=TrainerConfig(3, 0.05, warmup_epochs=1, seed=1)).fit()
        assert metrics_of(tmp_path) != metrics_of(undisturbed)

    def test_run_again_it_does_nothing(self, tmp_path):
        make_trainer(tmp_path).fit()
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        def fail(_):
            raise AssertionError("trained again")

        weights = make_trainer(tmp_path, {(epoch, 0): fail for epoch in range(4)}).fit()
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        loaded = SupernetWeights.load(tmp_path / "model.safetensors", SPACE)
        assert all(torch.equal(weights.query[k], v) for k, v in loaded.query.items())

    def test_lowers_the_loss(self, tmp_path):
        # Against the same run that learns nothing: the loss of the first steps tells little, since
        # the queue is not yet one of real keys.
        for lr in (0.1, 1e-9):
            config = TrainerConfig(epochs=15, lr=lr)
            make_trainer(tmp_path / str(lr), config=config).fit()
        learnt, still = metrics_of(tmp_path / "0.1")[-1], metrics_of(tmp_path / "1e-09")[-1]
        for name in ("loss_largest", "loss_smallest", "loss_random"):
            assert learnt[name] < still[name] - 0.1, name

    def test_without_random_subnets(self, tmp_path):
        make_trainer(tmp_path, config=TrainerConfig(epochs=1, random_subnets=0)).fit()
        assert metrics_of(tmp_path)[0]["loss_random"] is None

    def test_losses_are_means_over_steps_and_random_subnets(self, tmp_path, monkeypatch):
        seen = []

        def noted(*args, **options):
            result = sandwich_step(*args, **options)
            seen.append(result.losses)
            return result

        monkeypatch.setattr("edgesearch.pretrain.trainer.sandwich_step", noted)
        make_trainer(tmp_path, config=TrainerConfig(epochs=1, random_subnets=3)).fit()
        (line,) = metrics_of(tmp_path)
        largest, smallest, *randoms = torch.tensor(seen).mean(dim=0).tolist()
        assert len(randoms) == 3
        assert line["loss_largest"] == pytest.approx(largest)
        assert line["loss_smallest"] == pytest.approx(smallest)
        assert line["loss_random"] == pytest.approx(sum(randoms) / 3)


class TestMonitor:
    @pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3]), (2, [2, 3]), (0, [])])
    def test_runs_when_due_and_after_the_last_epoch(self, tmp_path, every, expected):
        seen = []

        def monitor(weights):
            seen.append(weights)
            return {"knn": 0.5}

        config = TrainerConfig(epochs=3, lr=0.05, monitor_every_epochs=every)
        make_trainer(tmp_path, config=config, monitor=monitor).fit()
        assert all(isinstance(weights, SupernetWeights) for weights in seen)
        monitored = [line["epoch"] for line in metrics_of(tmp_path) if line["monitor"]]
        assert monitored == expected
        assert len(seen) == len(expected)
        assert all(line["monitor"] in ({}, {"knn": 0.5}) for line in metrics_of(tmp_path))

    def test_that_runs_networks_changes_nothing(self, tmp_path, undisturbed):
        def monitor(weights):
            weights.subnet(SPACE.smallest)(torch.rand(2, 1, 16, 16))
            return {}

        config = TrainerConfig(epochs=3, lr=0.05, warmup_epochs=1, monitor_every_epochs=1)
        make_trainer(tmp_path, config=config, monitor=monitor).fit()
        assert_same_end(tmp_path, undisturbed)


class TestStoppedBySignal:
    @pytest.mark.parametrize(
        ("moment", "number", "message"),
        [
            ((0, 0), signal.SIGINT, "stopped by SIGINT in epoch 1 of 3"),
            ((1, 2), signal.SIGINT, "stopped by SIGINT in epoch 2 of 3"),
            ((1, 3), signal.SIGTERM, "stopped by SIGTERM after epoch 2 of 3"),
            ((2, 1), signal.SIGTERM, "stopped by SIGTERM in epoch 3 of 3"),
        ],
    )
    def test_goes_on_to_the_same_end(self, tmp_path, undisturbed, moment, number, message):
        with pytest.raises(Interrupted, match=message):
            make_trainer(tmp_path, {moment: send(number)}).fit()
        (done, step), state = moment, torch.load(tmp_path / "state.pt")["progress"]
        assert (state["epoch"] * STEPS + state["step"]) == done * STEPS + step + 1
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    def test_in_every_epoch(self, tmp_path, undisturbed):
        for moment in ((0, 1), (0, 3), (1, 0), (2, 2)):
            with pytest.raises(Interrupted):
                make_trainer(tmp_path, {moment: send(signal.SIGINT)}).fit()
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    def test_in_the_last_step_it_is_finished_all_the_same(self, tmp_path, undisturbed):
        make_trainer(tmp_path, {(2, 3): send(signal.SIGINT)}).fit()
        assert_same_end(tmp_path, undisturbed)

    def test_other_batches_after_the_stop_are_never_asked_for(self, tmp_path):
        asked = []
        happenings = {(0, step): asked.append for step in range(STEPS)}
        happenings[0, 1] = send(signal.SIGINT)
        with pytest.raises(Interrupted):
            make_trainer(tmp_path, happenings).fit()
        assert len(asked) == 1


def in_a_process(task):
    """Run a task in a process of its own, and say how it ended."""
    # A fresh interpreter: autograd refuses to run in a fork of a process in which it has run.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    code = (
        "import sys, cloudpickle, torch; torch.set_num_threads(1); "
        "cloudpickle.loads(sys.stdin.buffer.read())()"
    )
    pickled = cloudpickle.dumps(task)
    return subprocess.run([sys.executable, "-c", code], input=pickled, timeout=600).returncode


def kill_myself(*_):
    os.kill(os.getpid(), signal.SIGKILL)


class TestKilled:
    @pytest.mark.parametrize("moment", [(0, 2), (1, 0), (2, 3)])
    def test_within_an_epoch(self, tmp_path, undisturbed, moment):
        code = in_a_process(lambda: make_trainer(tmp_path, {moment: kill_myself}).fit())
        assert code == -signal.SIGKILL
        assert (tmp_path / "state.pt").exists() == (moment[0] > 0)
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    @pytest.mark.parametrize("epoch", [1, 2])
    def test_between_metrics_and_state(self, tmp_path, undisturbed, epoch):
        def task():
            trainer = make_trainer(tmp_path)
            save_state = trainer._save_state
            trainer._save_state = lambda: (
                kill_myself() if trainer.progress.epoch == epoch else save_state()
            )
            trainer.fit()

        assert in_a_process(task) == -signal.SIGKILL
        assert len(metrics_of(tmp_path)) == epoch
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    def test_within_a_line_of_metrics(self, tmp_path, undisturbed):
        with pytest.raises(Interrupted):
            make_trainer(tmp_path, {(1, 0): send(signal.SIGINT)}).fit()
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"epoch": 2, "ep')
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    def test_between_the_renamings_of_states(self, tmp_path, undisturbed):
        with pytest.raises(Interrupted):
            make_trainer(tmp_path, {(1, 0): send(signal.SIGINT)}).fit()
        (tmp_path / "state.pt").rename(tmp_path / "state.previous.pt")
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    def test_while_the_state_is_written(self, tmp_path, undisturbed):
        with pytest.raises(Interrupted):
            make_trainer(tmp_path, {(1, 0): send(signal.SIGINT)}).fit()
        (tmp_path / "state.partial").write_bytes(b"half of it")
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_worker_processes_too_reaches_a_checkpoint(tmp_path, number):
    def interrupt_group(_):
        os.killpg(os.getpgid(0), number)

    def task():
        os.setpgid(0, 0)
        try:
            make_trainer(tmp_path, {(0, 1): interrupt_group}, workers=2).fit()
        except Interrupted:
            os._exit(7)

    assert in_a_process(task) == 7
    assert torch.load(tmp_path / "state.pt")["progress"]["step"] == 2


class TestRefusals:
    def test_damaged_state(self, tmp_path):
        (tmp_path / "state.pt").write_bytes(b"garbage")
        with pytest.raises(CheckpointError, match="a training state of edgesearch at .*state.pt"):
            make_trainer(tmp_path).fit()
        assert (tmp_path / "state.pt").read_bytes() == b"garbage"

    def test_damaged_state_with_one_before(self, tmp_path, undisturbed):
        with pytest.raises(Interrupted):
            make_trainer(tmp_path, {(1, 0): send(signal.SIGINT)}).fit()
        damaged = (tmp_path / "state.pt").read_bytes()[:5000]
        (tmp_path / "state.pt").write_bytes(damaged)
        with pytest.warns(UserWarning, match="state.pt is damaged: .* that after epoch 1$"):
            make_trainer(tmp_path).fit()
        assert (tmp_path / "state.damaged").read_bytes() == damaged
        (tmp_path / "state.damaged").unlink()
        assert_same_end(tmp_path, undisturbed)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_loss_that_is_not_finite(self, tmp_path, undisturbed, bad):
        def spoil(views):
            return views[0] * bad, views[1]

        with pytest.raises(
            TrainingError, match=r"finite losses; found: \[nan.* at step 6 \(epoch 2\)"
        ):
            make_trainer(tmp_path, {(1, 2): spoil}).fit()
        assert torch.load(tmp_path / "state.pt")["progress"]["epoch"] == 1
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    def test_learning_rate_that_is_far_too_high(self, tmp_path):
        config = TrainerConfig(epochs=3, lr=1e30)
        with pytest.raises(TrainingError, match="Set a smaller pretrain.lr or more pretrain.warm"):
            make_trainer(tmp_path, config=config).fit()


class TestLearningRate:
    def test_rises_and_falls(self, tmp_path):
        trainer = make_trainer(tmp_path)
        rates = [trainer.learning_rate(step) for step in range(3 * STEPS)]
        rising = [0.05 * part for part in (0.25, 0.5, 0.75, 1.0)]
        falling = [0.05 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
        assert rates == pytest.approx(rising + falling)
        assert trainer.learning_rate(3 * STEPS) == pytest.approx(0, abs=1e-12)

    def test_without_warm_up(self, tmp_path):
        trainer = make_trainer(tmp_path, config=TrainerConfig(epochs=2, lr=0.05))
        assert trainer.learning_rate(0) == 0.05
        assert trainer.learning_rate(STEPS) == pytest.approx(0.025)

    def test_warm_up_to_the_end(self, tmp_path):
        trainer = make_trainer(tmp_path, config=TrainerConfig(epochs=1, lr=0.05, warmup_epochs=1))
        assert trainer.learning_rate(STEPS - 1) == pytest.approx(0.05)

    def test_is_that_of_the_steps_and_of_the_metrics(self, tmp_path, undisturbed):
        trainer, used = make_trainer(tmp_path), []
        trainer.optimizer.register_step_pre_hook(
            lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"])
        )
        trainer.fit()
        assert used == [trainer.learning_rate(step) for step in range(3 * STEPS)]
        assert [line["lr"] for line in metrics_of(undisturbed)] == used[STEPS - 1 :: STEPS]
