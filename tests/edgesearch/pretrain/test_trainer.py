"""Training runs: stopped in every way, and gone on with to exactly the same end."""

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
from edgesearch.errors import CheckpointError, Interrupted, TrainingError
from edgesearch.families.mobile.space import MobileSpace
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.pretrain.faithful import choose_step
from edgesearch.pretrain.lessons import Lesson, SecondLesson
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.method import make_method
from edgesearch.pretrain.progress import Listener
from edgesearch.pretrain.recipes import RECIPES
from edgesearch.pretrain.sandwich import sandwich_step
from edgesearch.pretrain.settings import PretrainSettings
from edgesearch.pretrain.trainer import Trainer
from edgesearch.search.agreement import Agreement
from edgesearch.supernet.weights import SupernetWeights
from edgesearch.training.checkpoint import save_state

UNTAUGHT = [name for name, recipe in RECIPES.items() if not recipe.taught]
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
MOBILE = MobileSpace(
    name="one mobile stage",
    activation="relu6",
    stem_widths=(4,),
    stage_strides=(1,),
    stage_widths=((4, 8),),
    stage_depths=((1, 2),),
    stage_kernels=((3, 5),),
    stage_expansions=((2,),),
    head_widths=(8,),
    resolutions=(8,),
    padding="tensorflow",
    in_channels=1,
)
SPACES = {"resnet": SPACE, "mobile": MOBILE}
"""What is killed and goes on to the same bits; all else about training asks nothing of a family."""
IMAGES = open_images(DataSettings(source="digits"), 1).train
STEPS, EPOCHS = 4, 3
HEADS = {
    "queue_size": 8,
    "temperature": 0.2,
    "ema_momentum": 0.9,
    "projector_hidden_dim": 8,
    "projector_dim": 4,
    "projector_bn": True,
    "predictor_hidden_dim": 4,
}
EACH_STEP = 1e-9
"""Minutes between states so short that each step leaves one."""


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


class Recorder(Listener):
    """Keeps what it is told, and does something after an epoch or a step."""

    def __init__(self, on_epoch=None, on_step=None):
        self.epochs, self.steps, self.notices = [], [], []
        self.on_epoch, self.on_step = on_epoch, on_step

    def epoch(self, report):
        self.epochs.append(report)
        if self.on_epoch:
            self.on_epoch(report)

    def step(self, report):
        self.steps.append(report)
        if self.on_step:
            self.on_step(report)

    def notice(self, message):
        self.notices.append(message)


def make_trainer(
    folder, happenings=None, *, steps=STEPS, method=None, space=SPACE, seed=0, **given
):
    """A training of 3 epochs of 4 steps, with options of the trainer and of its settings."""
    own = {name: given.pop(name) for name in ("monitor", "listener") if name in given}
    name = given.get("method_name", "moco_v2")
    options = {k: v for k, v in {**HEADS, **given}.items() if k in RECIPES[name].options}
    training = {
        "method": name,
        "epochs": EPOCHS,
        "batch_size": 8,
        "lr": 0.05,
        "optimizer": "sgd",
        "warmup_epochs": 0,
        "weight_decay": 1e-4,
        "knn_every_epochs": 1,
        "tensorboard": False,
        "device": "cpu",
        "workers": 0,
        "augmentation": {"batched": "workers" not in given, "flip_probability": 0.0},
    }
    changes = {k: v for k, v in given.items() if k != "method_name"}
    settings = PretrainSettings(**{**training, **options, **changes})
    method = method or make_method(name, space, **options)
    side = method.space.largest.resolution
    loader = make_loader(
        IMAGES.subset(range(steps * settings.batch_size)),
        method.views(settings.augmentation),
        Preprocess(side, 1, (0.3,), (0.37,)),
        settings,
        seed,
    )
    assert loader.steps_per_epoch == steps
    identity = {"seed": seed, "pretrain.method": name}
    hooked = HookedLoader(loader, happenings or {})
    return Trainer(method, hooked, settings, seed, folder, identity=identity, **own)


class Killed(BaseException):
    """Ends a training without another word."""


def kill(*_):
    raise Killed


def send(number=signal.SIGTERM):
    def happening(_):
        signal.raise_signal(number)

    return happening


def kill_myself(_):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_a_worker(_):
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    time.sleep(60)  # until the death is told, which raises here


def in_a_process(task):
    """Run a task in a fresh interpreter, and say how it ended."""
    # Autograd refuses to run in a fork of a process in which it has run.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    code = (
        "import sys, cloudpickle, torch; torch.set_num_threads(1); "
        "cloudpickle.loads(sys.stdin.buffer.read())()"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, input=cloudpickle.dumps(task), timeout=600).returncode


def metrics_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    timed = ("duration_s", "images_per_s", "data_wait", "augmenting")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def stands_at(folder):
    progress = torch.load(folder / "state.pt")["progress"]
    return progress["epoch"], progress["step"]


def flat(state, path=""):
    """Everything in a state, by its path."""
    if isinstance(state, list):
        state = dict(enumerate(state))
    if not isinstance(state, dict):
        return {path: state}
    return {k: v for key, value in state.items() for k, v in flat(value, f"{path}/{key}").items()}


def same(one, other):
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def assert_same_end(folder, undisturbed):
    """The same files; every bit of weights, queue and optimizer; a line for each epoch."""
    assert metrics_of(folder) == metrics_of(undisturbed)
    assert sorted(os.listdir(folder)) == sorted(os.listdir(undisturbed))
    for name in ("model.safetensors", "best.safetensors"):
        if (undisturbed / name).exists():
            assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
    found, expected = (flat(torch.load(each / "state.pt")) for each in (folder, undisturbed))
    assert found.keys() == expected.keys()
    assert [key for key, value in expected.items() if not same(found[key], value)] == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    make_trainer(folder).fit()
    return folder


class TestWholeRun:
    def test_leaves_weights_metrics_and_state(self, tmp_path):
        folder, told = tmp_path / "deep" / "run", Recorder()
        weights = make_trainer(folder, listener=told).fit()
        loaded = SupernetWeights.load(folder / "model.safetensors", SPACE)
        for name in ("query", "query_projector", "key", "key_projector"):
            state, expected = getattr(loaded, name), getattr(weights, name)
            assert all(torch.equal(state[key], expected[key]) for key in expected)
        assert loaded.method == "moco_v2"
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
        assert lines == [vars(report) for report in told.epochs]
        assert [report.epoch for report in told.epochs] == [1, 2, 3]
        for report in told.epochs:
            assert report.epochs == 3
            assert report.best_epoch is None
            assert report.images_per_s == pytest.approx(32 / report.duration_s)
            losses = (report.loss_largest, report.loss_smallest, report.loss_random)
            assert all(0 < loss < 20 for loss in losses)
        names = ["metrics.jsonl", "model.safetensors", "state.previous.pt", "state.pt"]
        assert sorted(os.listdir(folder)) == names

    def test_is_the_same_whatever_the_random_state(self, tmp_path, undisturbed):
        torch.manual_seed(99)
        random.seed(99)
        state = torch.get_rng_state()
        make_trainer(tmp_path).fit()
        assert torch.equal(torch.get_rng_state(), state)
        assert_same_end(tmp_path, undisturbed)

    def test_another_seed_is_another_run(self, tmp_path, undisturbed):
        make_trainer(tmp_path, seed=1).fit()
        assert metrics_of(tmp_path) != metrics_of(undisturbed)

    def test_run_again_it_does_nothing(self, tmp_path):
        make_trainer(tmp_path).fit()
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        weights = make_trainer(tmp_path, {(epoch, 0): kill for epoch in range(4)}).fit()
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        loaded = SupernetWeights.load(tmp_path / "model.safetensors", SPACE)
        assert all(torch.equal(weights.query[k], v) for k, v in loaded.query.items())

    def test_lowers_the_loss(self, tmp_path, new_method):
        # Against the same run that learns nothing: the loss of the first steps tells little, since
        # the queue is not yet one of real keys.
        for lr in (0.1, 1e-9):
            method = new_method("moco_v2", queue_size=32, projector_dim=8, ema_momentum=0.9)
            options = {"batch_size": 32, "queue_size": 32, "epochs": 12, "lr": lr}
            make_trainer(tmp_path / str(lr), method=method, **options).fit()
        learnt, still = metrics_of(tmp_path / "0.1")[-1], metrics_of(tmp_path / "1e-09")[-1]
        for name in ("loss_largest", "loss_smallest", "loss_random"):
            assert learnt[name] < still[name] - 0.1, name

    def test_losses_are_means_over_steps_and_random_subnets(self, tmp_path, monkeypatch):
        seen = []

        def noted(*args, **options):
            result = sandwich_step(*args, **options)
            seen.append(result.losses)
            return result

        monkeypatch.setattr("edgesearch.pretrain.faithful.sandwich_step", noted)
        make_trainer(tmp_path / "3", epochs=1, random_subnets=3).fit()
        (line,) = metrics_of(tmp_path / "3")
        largest, smallest, *randoms = torch.tensor(seen).mean(dim=0).tolist()
        assert len(randoms) == 3
        assert line["loss_largest"] == pytest.approx(largest)
        assert line["loss_smallest"] == pytest.approx(smallest)
        assert line["loss_random"] == pytest.approx(sum(randoms) / 3)
        make_trainer(tmp_path / "0", epochs=1, random_subnets=0).fit()
        assert metrics_of(tmp_path / "0")[0]["loss_random"] is None


class TestMonitor:
    @pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3]), (2, [2, 3]), (0, [])])
    def test_runs_when_due_and_after_the_last_epoch(self, tmp_path, every, expected):
        seen = []

        def monitor(weights):
            seen.append(weights)
            return {"knn": 0.5}

        make_trainer(tmp_path, knn_every_epochs=every, monitor=monitor).fit()
        assert all(isinstance(weights, SupernetWeights) for weights in seen)
        assert [line["epoch"] for line in metrics_of(tmp_path) if line["monitor"]] == expected
        assert len(seen) == len(expected)

    def test_that_runs_networks_changes_nothing(self, tmp_path, undisturbed):
        def monitor(weights):
            weights.subnet(SPACE.smallest)(torch.rand(2, 1, 8, 8))
            return {}

        make_trainer(tmp_path, monitor=monitor).fit()
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
        (done, step), (epochs, steps) = moment, stands_at(tmp_path)
        assert epochs * STEPS + steps == done * STEPS + step + 1
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    def test_with_channels_first_in_memory_too(self, tmp_path):
        first = {"memory_format": "channels_first"}
        make_trainer(tmp_path / "whole", **first).fit()
        with pytest.raises(Interrupted):
            make_trainer(tmp_path / "stopped", {(1, 2): send()}, **first).fit()
        trainer = make_trainer(tmp_path / "stopped", **first)
        trainer.fit()
        assert trainer.method.query.supernet.backbone.conv1.weight.is_contiguous()
        assert_same_end(tmp_path / "stopped", tmp_path / "whole")

    def test_in_the_last_step_it_is_finished_all_the_same(self, tmp_path, undisturbed):
        trainer = make_trainer(tmp_path, {(2, 3): send(signal.SIGINT)})
        trainer.fit()
        assert trainer.stopped_by is signal.SIGINT
        assert_same_end(tmp_path, undisturbed)

    def test_other_batches_after_the_stop_are_never_asked_for(self, tmp_path):
        asked = []
        happenings = {(0, step): asked.append for step in range(STEPS)}
        with pytest.raises(Interrupted):
            make_trainer(tmp_path, {**happenings, (0, 1): send(signal.SIGINT)}).fit()
        assert len(asked) == 1

    @pytest.mark.parametrize(
        "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
    )
    def test_that_workers_get_too_it_reaches_a_checkpoint(self, tmp_path, number):
        def interrupt_group(_):
            os.killpg(os.getpgid(0), number)

        def task():
            os.setpgid(0, 0)
            try:
                make_trainer(tmp_path, {(0, 1): interrupt_group}, workers=2).fit()
            except Interrupted:
                os._exit(7)

        assert in_a_process(task) == 7
        assert stands_at(tmp_path) == (0, 2)


class TestKilled:
    @pytest.mark.parametrize("family", SPACES)
    def test_by_the_system_it_goes_on_from_the_last_state(self, tmp_path, family):
        killed, whole, space = tmp_path / "killed", tmp_path / "whole", SPACES[family]

        def task():
            options = {"space": space, "checkpoint_minutes": EACH_STEP}
            make_trainer(killed, {(1, 2): kill_myself}, **options).fit()

        assert in_a_process(task) == -signal.SIGKILL
        assert stands_at(killed) == (1, 2)
        make_trainer(killed, {(1, 1): kill}, space=space).fit()
        make_trainer(whole, space=space).fit()
        assert_same_end(killed, whole)

    @pytest.mark.parametrize("moment", [(0, 2), (1, 0), (2, 3)])
    def test_within_an_epoch(self, tmp_path, undisturbed, moment):
        with pytest.raises(Killed):
            make_trainer(tmp_path, {moment: kill}).fit()
        assert (tmp_path / "state.pt").exists() == (moment[0] > 0)
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    @pytest.mark.parametrize("epoch", [1, 2])
    def test_between_metrics_and_state(self, tmp_path, undisturbed, epoch):
        trainer = make_trainer(tmp_path)
        save = trainer._save_state
        trainer._save_state = lambda: kill() if trainer.progress.epoch == epoch else save()
        with pytest.raises(Killed):
            trainer.fit()
        assert len(metrics_of(tmp_path)) == epoch
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    @pytest.mark.parametrize("left", ["line", "renaming", "partial"])
    def test_within_writing(self, tmp_path, undisturbed, left):
        with pytest.raises(Interrupted):
            make_trainer(tmp_path, {(1, 0): send()}).fit()
        if left == "line":
            with (tmp_path / "metrics.jsonl").open("a") as file:
                file.write('{"epoch": 2, "ep')
        elif left == "renaming":
            (tmp_path / "state.pt").rename(tmp_path / "state.previous.pt")
        else:
            (tmp_path / ".state.pt.partial").write_bytes(b"half of it")
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("minutes", "family"), [(EACH_STEP, "resnet"), (60, "resnet"), (EACH_STEP, "mobile")]
    )
    def test_at_random_steps_with_workers(self, tmp_path, minutes, family):
        """Six kills, each at a step of its own, on the way to the same bits."""
        moments = [(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]
        kills = sorted(random.SystemRandom().sample(moments, 6))
        print("killed before", kills)
        killed, whole = tmp_path / "killed", tmp_path / "whole"

        def task(moment=None):
            options = {"workers": 2, "checkpoint_minutes": minutes, "space": SPACES[family]}
            return lambda: make_trainer(killed, {moment: kill_myself}, **options).fit()

        assert {in_a_process(task(moment)) for moment in kills} == {-signal.SIGKILL}
        assert in_a_process(task()) == 0
        undisturbed = lambda: make_trainer(whole, workers=2, space=SPACES[family]).fit()  # noqa: E731
        assert in_a_process(undisturbed) == 0
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
        assert "worker processes (pretrain.workers)" in said
        assert "found: DataLoader worker (pid" in said
        assert "set fewer pretrain.workers" in said
        assert stands_at(tmp_path / "a") == (1, 1)
        make_trainer(tmp_path / "a", workers=0).fit()
        make_trainer(tmp_path / "b", workers=0).fit()
        assert_same_end(tmp_path / "a", tmp_path / "b")

    def test_between_steps_leaves_the_state_of_the_last_one(self, tmp_path):
        def die(_):
            raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")

        with pytest.raises(TrainingError, match="found: DataLoader worker .pid 12. is killed by"):
            make_trainer(tmp_path, {(1, 2): die}).fit()
        assert stands_at(tmp_path) == (1, 2)

    def test_within_a_step_leaves_the_state_before(self, tmp_path):
        trainer = make_trainer(tmp_path)

        def die(*_):
            if trainer.progress.epoch == 1 and trainer.progress.step == 2:
                raise RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly")

        trainer.optimizer.register_step_post_hook(die)
        with pytest.raises(TrainingError, match="exited unexpectedly"):
            trainer.fit()
        assert stands_at(tmp_path) == (1, 0)

    def test_another_error_stays_what_it_is(self, tmp_path):
        def fail(_):
            raise RuntimeError("something else")

        with pytest.raises(RuntimeError, match="^something else$"):
            make_trainer(tmp_path, {(0, 1): fail}).fit()


class TestRefusals:
    def test_damaged_state_with_one_before(self, tmp_path, undisturbed):
        with pytest.raises(Interrupted):
            make_trainer(tmp_path, {(1, 0): send()}).fit()
        damaged = (tmp_path / "state.pt").read_bytes()[:5000]
        (tmp_path / "state.pt").write_bytes(damaged)
        with pytest.warns(UserWarning, match="state.pt is damaged: .* after epoch 1$"):
            make_trainer(tmp_path).fit()
        assert (tmp_path / "state.damaged").read_bytes() == damaged
        (tmp_path / "state.damaged").unlink()
        assert_same_end(tmp_path, undisturbed)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_loss_that_is_not_finite(self, tmp_path, undisturbed, bad):
        def spoil(views):
            return views[0] * bad, views[1]

        message = r"finite losses; found: \[nan.* at step 6 \(epoch 2\)"
        with pytest.raises(TrainingError, match=message):
            make_trainer(tmp_path, {(1, 2): spoil}).fit()
        assert stands_at(tmp_path) == (1, 0)
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    @pytest.mark.parametrize("at", [(1, 3), (1, 1)])
    def test_bad_weights_never_replace_good_ones(self, tmp_path, undisturbed, at):
        trainer = make_trainer(tmp_path, checkpoint_minutes=EACH_STEP)

        def spoil(*_):
            if (trainer.progress.epoch, trainer.progress.step) == at:
                next(trainer.method.parameters()).data.view(-1)[0] = math.nan

        trainer.optimizer.register_step_post_hook(spoil)
        message = (
            f"finite weights; found: non-finite values in .* after step {at[0] * STEPS + at[1]}"
        )
        with pytest.raises(TrainingError, match=message):
            trainer.fit()
        assert stands_at(tmp_path) == at
        assert len(metrics_of(tmp_path)) == 1
        make_trainer(tmp_path).fit()
        assert_same_end(tmp_path, undisturbed)

    def test_another_way_to_compute_is_said(self, tmp_path):
        with pytest.raises(Interrupted):
            make_trainer(tmp_path, {(0, 1): send()}).fit()
        state, told = torch.load(tmp_path / "state.pt"), Recorder()
        changed = {"threads": 5, "accumulation": 2, "processes": 4}
        save_state(tmp_path / "state.pt", {**state, **changed})
        make_trainer(tmp_path, listener=told).fit()
        processes, accumulation, threads = told.notices
        assert "begun with 4 processes and continues with 1: its results" in processes
        assert "begun with pretrain.accumulation 2 and continues with 1: its" in accumulation
        assert f"begun with 5 threads and continues with {torch.get_num_threads()}:" in threads


class TestLearningRate:
    def test_rises_and_falls(self, tmp_path):
        trainer = make_trainer(tmp_path, warmup_epochs=1)
        rates = [trainer.learning_rate(step) for step in range(3 * STEPS)]
        rising = [0.05 * part for part in (0.25, 0.5, 0.75, 1.0)]
        falling = [0.05 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
        assert rates == pytest.approx(rising + falling)
        assert trainer.learning_rate(3 * STEPS) == pytest.approx(0, abs=1e-12)

    def test_without_warm_up(self, tmp_path):
        trainer = make_trainer(tmp_path, epochs=2)
        assert trainer.learning_rate(0) == 0.05
        assert trainer.learning_rate(STEPS) == pytest.approx(0.025)

    def test_is_that_of_the_steps_and_of_the_metrics(self, tmp_path):
        trainer, used = make_trainer(tmp_path, warmup_epochs=1), []
        trainer.optimizer.register_step_pre_hook(
            lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"])
        )
        trainer.fit()
        assert used == [trainer.learning_rate(step) for step in range(3 * STEPS)]
        assert [line["lr"] for line in metrics_of(tmp_path)] == used[STEPS - 1 :: STEPS]


MOMENTS = [(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]


class TestTime:
    def test_states_are_saved_within_an_epoch_when_it_is_due(self, tmp_path, monkeypatch):
        now, saved = 0.0, []

        def ten_seconds_later(_):
            nonlocal now
            now += 10

        def noted(path, state):
            saved.append((state["progress"]["epoch"], state["progress"]["step"]))
            save_state(path, state)

        monkeypatch.setattr("edgesearch.pretrain.trainer.time.monotonic", lambda: now)
        monkeypatch.setattr("edgesearch.pretrain.trainer.save_state", noted)
        moments = dict.fromkeys(MOMENTS, ten_seconds_later)
        make_trainer(tmp_path / "a", moments, checkpoint_minutes=0.5).fit()
        assert saved == [(0, 3), (1, 0), (1, 3), (2, 0), (2, 3), (3, 0)]
        saved.clear()
        make_trainer(tmp_path / "b", moments, checkpoint_minutes=60.0).fit()
        assert saved == [(1, 0), (2, 0), (3, 0)]

    def test_steps_are_reported_with_what_is_left(self, tmp_path, monkeypatch):
        now, told = 0.0, Recorder()

        def two_seconds_later(_):
            nonlocal now
            now += 2

        monkeypatch.setattr("edgesearch.pretrain.trainer.time.monotonic", lambda: now)
        make_trainer(tmp_path, dict.fromkeys(MOMENTS, two_seconds_later), listener=told).fit()
        places = [(report.epoch - 1, report.step - 1) for report in told.steps]
        assert places == MOMENTS
        assert {(report.epochs, report.steps) for report in told.steps} == {(EPOCHS, STEPS)}
        assert [report.remaining_s for report in told.steps] == [2 * (11 - i) for i in range(12)]
        assert all(report.images_per_s > 0 for report in told.steps)
        losses = [line["loss_largest"] for line in metrics_of(tmp_path)]
        assert [report.loss for report in told.steps[3::4]] == losses

    def test_the_share_that_waits_for_data_is_measured(self, tmp_path, monkeypatch):
        now = 0.0

        def pass_time(seconds):
            nonlocal now
            now += seconds

        monkeypatch.setattr("edgesearch.pretrain.progress.time.perf_counter", lambda: now)
        trainer = make_trainer(tmp_path, {(1, step): lambda _: pass_time(3.0) for step in range(4)})
        trainer.optimizer.register_step_post_hook(lambda *_: pass_time(1.0))
        trainer.fit()
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
        assert [line["data_wait"] for line in lines] == [0, 0.75, 0]
        assert [line["duration_s"] for line in lines] == [4, 16, 4]
        assert lines[1]["images_per_s"] == 2


class TestBest:
    MONITORED = ({"a": 0.2, "b": 0.4}, {"a": 0.9, "b": 0.7}, {"a": 0.95, "b": 0.5})

    def trainer(self, folder, happenings=None, **options):
        trainer = make_trainer(folder, happenings, **options)
        trainer.monitor = lambda _: dict(self.MONITORED[trainer.progress.epoch])
        return trainer

    def test_is_that_of_the_highest_mean(self, tmp_path):
        kept = {}
        told = Recorder(
            lambda report: kept.update(
                {report.epoch: (tmp_path / "model.safetensors").read_bytes()}
            )
        )
        self.trainer(tmp_path, listener=told).fit()
        assert [line["best_epoch"] for line in metrics_of(tmp_path)] == [1, 2, 2]
        assert (tmp_path / "best.safetensors").read_bytes() == kept[2]
        assert (tmp_path / "model.safetensors").read_bytes() == kept[3] != kept[2]

    @pytest.mark.parametrize("moment", [(1, 3), (2, 0), None])
    def test_is_the_same_after_a_stop(self, tmp_path, moment):
        trainer = self.trainer(tmp_path / "a", {moment: send()} if moment else {})
        save = trainer._save_state
        if moment is None:  # between it and the state
            trainer._save_state = lambda: kill() if trainer.progress.epoch == 2 else save()
        with pytest.raises((Interrupted, Killed)):
            trainer.fit()
        self.trainer(tmp_path / "a").fit()
        self.trainer(tmp_path / "b").fit()
        assert_same_end(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "a" / "best.safetensors").exists()


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
        trainer(tmp_path, {(1, 1): send()}).fit()
    trainer(tmp_path).fit()
    assert [line["replaced_images"] for line in metrics_of(tmp_path)] == [STEPS] * EPOCHS


class TestExplodingLoss:
    """Epochs of 22 steps, whose loss at each step can be made another."""

    STEPS = 22

    def trainer(self, folder, loss_of, *, epochs=7, **options):
        trainer = make_trainer(
            folder,
            steps=self.STEPS,
            method_name="simclr",
            epochs=epochs,
            batch_size=4,
            lr=1e-3,
            random_subnets=0,
            **options,
        )
        loss = trainer.method.loss

        def changed(views, targets):
            found = loss(views, targets)
            step = trainer.progress.epoch * self.STEPS + trainer.progress.step
            return found._replace(value=loss_of(step, found.value))

        trainer.method.loss = changed
        trainer.monitor = lambda _: {"rising": trainer.progress.epoch}
        return trainer

    @staticmethod
    def ten_times_from(first, until=math.inf):
        return lambda step, loss: loss * (10 if first <= step < until else 1)

    @pytest.mark.parametrize(
        ("first", "minutes", "kept"),
        [
            (4 * STEPS + 15, 60.0, (4, 0)),
            (4 * STEPS + 15, EACH_STEP, (4, 15)),
            (3 * STEPS - 1, EACH_STEP, (2, 21)),
            (STEPS + 3, 60.0, (1, 0)),
        ],
    )
    def test_stops_the_run_and_leaves_what_was_good(self, tmp_path, first, minutes, kept):
        weights = {}
        told = Recorder(
            lambda report: weights.update(
                {report.epoch: (tmp_path / "model.safetensors").read_bytes()}
            )
        )
        changed = self.ten_times_from(first)
        trainer = self.trainer(tmp_path, changed, checkpoint_minutes=minutes, listener=told)
        end = first + 49
        message = (
            "a loss of at most .*, 3 times the highest mean so far; found: 50 more high steps than "
            rf"others, up to step {end} \(epoch {end // self.STEPS + 1}\), the last .* Set a small"
        )
        with pytest.raises(TrainingError, match=message):
            trainer.fit()
        assert stands_at(tmp_path) == kept
        for name in ("model.safetensors", "best.safetensors"):
            assert (tmp_path / name).read_bytes() == weights[kept[0]]

    def test_of_a_queue_that_fills_does_not_stop_it(self, tmp_path):
        def rising(step, loss):
            return loss * 0 + math.log1p(4 * min(step, 150))

        self.trainer(tmp_path, rising).fit()
        assert stands_at(tmp_path) == (7, 0)

    def test_a_spike_at_the_end_of_an_epoch_stops_nothing(self, tmp_path):
        seen, spike = [], 3 * self.STEPS - 1
        told = Recorder(lambda _: seen.append(stands_at(tmp_path)[0]))
        changed = self.ten_times_from(spike, spike + 1)
        self.trainer(tmp_path, changed, epochs=5, listener=told).fit()
        message = "the loss is high as epoch 3 ends: weights and state are not kept"
        assert told.notices == [message]
        assert seen == [1, 2, 2, 4, 5]
        assert [line["best_epoch"] for line in metrics_of(tmp_path)] == [1, 2, 2, 4, 5]

    @pytest.mark.parametrize(("high_steps", "stopped"), [(1, False), (2, True)])
    def test_at_the_end_of_the_run(self, tmp_path, high_steps, stopped):
        changed = self.ten_times_from(3 * self.STEPS - high_steps)
        trainer = self.trainer(tmp_path, changed, epochs=3)
        if stopped:
            message = r"2 more high steps than others, up to step 65 \(epoch 3\)"
            with pytest.raises(TrainingError, match=message):
                trainer.fit()
        else:
            trainer.fit()
        assert stands_at(tmp_path) == ((2, 0) if stopped else (3, 0))

    def test_a_signal_while_it_may_be_exploding_keeps_the_good_state(self, tmp_path):
        first = 2 * self.STEPS + 5

        def stop(report):
            if (report.epoch, report.step) == (3, 20):
                signal.raise_signal(signal.SIGTERM)

        changed, options = self.ten_times_from(first), {"checkpoint_minutes": EACH_STEP}
        told = Recorder(on_step=stop)
        with pytest.raises(Interrupted):
            self.trainer(tmp_path, changed, listener=told, **options).fit()
        assert stands_at(tmp_path) == (2, 5)
        with pytest.raises(TrainingError, match=f"up to step {first + 49} "):
            self.trainer(tmp_path, changed, listener=Recorder(), **options).fit()

    def test_spikes_are_remembered_over_a_kill(self, tmp_path):
        def run(folder, killed_at=None):
            def spikes(step, loss):
                if step == killed_at:
                    raise Killed
                return loss * (10 if step in (30, 2 * self.STEPS - 1, 2 * self.STEPS) else 1)

            options = {"checkpoint_minutes": EACH_STEP, "listener": Recorder()}
            self.trainer(folder, spikes, epochs=4, **options).fit()

        run(tmp_path / "whole")
        for killed_at in (31, 2 * self.STEPS + 9):
            folder = tmp_path / str(killed_at)
            with pytest.raises(Killed):
                run(folder, killed_at)
            run(folder)
            assert_same_end(folder, tmp_path / "whole")


METHOD_OPTIONS = {"epochs": 2, "warmup_epochs": 1, "distill": 0.5, "largest_only_epochs": 1}


@pytest.fixture(scope="module")
def trainer_of(new_method):
    def trainer_of(folder, name, happenings=None, **options):
        queue = {"queue_size": 32} if "queue_size" in RECIPES[name].options else {}
        method = new_method(name, **queue)
        options = {"method_name": name, "steps": 3, "batch_size": 32, **queue, **options}
        return make_trainer(folder, happenings, method=method, **options)

    return trainer_of


@pytest.fixture(scope="module")
def whole(trainer_of, tmp_path_factory):
    """The folder of a whole run, by the method's name."""
    folders = {name: tmp_path_factory.mktemp(name) for name in UNTAUGHT}
    for name, folder in folders.items():
        trainer_of(folder, name, **METHOD_OPTIONS).fit()
    return folders


@pytest.mark.parametrize("name", UNTAUGHT)
class TestEveryMethod:
    def test_goes_on_to_the_same_end(self, tmp_path, trainer_of, whole, name):
        for moment in ((0, 1), (1, 0)):
            moments = {moment: send(signal.SIGINT)}
            with pytest.raises(Interrupted, match="stopped by SIGINT in epoch"):
                trainer_of(tmp_path, name, moments, **METHOD_OPTIONS).fit()
        trainer_of(tmp_path, name, **METHOD_OPTIONS).fit()
        assert_same_end(tmp_path, whole[name])

    def test_the_search_can_score_its_weights(self, whole, new_method, pinhole, name):
        weights = SupernetWeights.load(whole[name] / "model.safetensors", pinhole)
        pixels = {side: torch.rand(48, 1, side, side) for side in pinhole.resolutions}
        score = Agreement(
            weights,
            lambda side, first, last: pixels[side][first:last],
            pixels.__getitem__,
            batch_size=16,
            images=48,
        )
        found = [score(architecture) for architecture in (pinhole.smallest, pinhole.largest)]
        assert all(-1 <= agreement <= 1 for agreement in found)
        alone = new_method(name).key is None
        assert (weights.key is weights.query) == alone
        assert (found[1] == pytest.approx(1)) == alone

    def test_embeddings_of_a_healthy_run_are_apart(self, tmp_path, trainer_of, name):
        trainer_of(tmp_path, name, epochs=1, lr=0.01).fit()
        assert 0.1 < metrics_of(tmp_path)[0]["spread"] < 1.2


def test_state_of_another_method_is_refused(tmp_path, trainer_of, whole):
    (tmp_path / "state.pt").write_bytes((whole["byol"] / "state.pt").read_bytes())
    expected = "pretrain.method 'simclr' at .*; found: pretrain.method 'byol'"
    with pytest.raises(CheckpointError, match=expected):
        trainer_of(tmp_path, "simclr").fit()


def test_weights_hold_the_projectors_of_places(whole, pinhole):
    state = torch.load(whole["densecl"] / "state.pt")["method"]
    weights = SupernetWeights.load(whole["densecl"] / "model.safetensors", pinhole)
    for side in ("query", "key"):
        projector = getattr(weights, f"{side}_dense_projector")
        prefix = f"{side}.dense_projector."
        names = [key.removeprefix(prefix) for key in state if key.startswith(prefix)]
        assert sorted(projector) == sorted(names)
        assert all(torch.equal(projector[key], state[prefix + key]) for key in names)
    assert not torch.equal(
        weights.query_dense_projector["fc1.weight"], weights.query_projector["fc1.weight"]
    )
    other = SupernetWeights.load(whole["byol"] / "model.safetensors", pinhole)
    assert other.query_dense_projector is other.key_dense_projector is None


def test_the_largest_alone_and_then_all(trainer_of, tmp_path):
    told, passes = Recorder(), []
    trainer = trainer_of(tmp_path, "simclr", epochs=2, largest_only_epochs=1, listener=told)
    query, largest = trainer.method.query, trainer.method.space.largest
    query.supernet.register_forward_hook(lambda *_: passes.append(query.supernet.active))
    trainer.fit()
    assert passes[:3] == [largest] * 3
    assert passes[3::3] == [largest] * 3
    assert len(passes) == 12
    missing = [(r.loss_smallest is None, r.loss_random is None) for r in told.epochs]
    assert missing == [(True, True), (False, False)]


def test_weights_of_losses_and_distillation_change_what_is_learnt(trainer_of, tmp_path):
    ends = []
    for number, options in enumerate(
        ({}, {"distill": 1.0}, {"loss_weights": (1.0, 0.5, 1.0)}, {"loss_weights": (1.0, 1.0, 0.5)})
    ):
        weights = trainer_of(tmp_path / str(number), "moco_v2", epochs=1, **options).fit()
        ends.append(weights.query["conv1.weight"].clone())
    assert not any(torch.equal(a, b) for i, a in enumerate(ends) for b in ends[:i])


def test_methods_are_told_how_much_of_the_training_came_before(trainer_of, tmp_path):
    trainer = trainer_of(tmp_path, "byol", epochs=2)
    momentum_at, told = trainer.method.momentum_at, []
    trainer.method.momentum_at = lambda share: told.append(share) or momentum_at(share)
    trainer.fit()
    assert told == pytest.approx([step / 6 for step in range(6)])


class TestFaithful:
    def test_every_subnet_fills_the_queue(self, trainer_of, tmp_path):
        trainer = trainer_of(tmp_path, "moco_v2", epochs=1, faithful=True)
        put, filled = trainer.method.queue.put, []
        trainer.method.queue.put = lambda keys: (filled.append(len(keys)), put(keys))
        trainer.fit()
        assert filled == [32] * 9

    @pytest.mark.parametrize(
        ("name", "options", "found"),
        [
            ("byol", {}, "BYOL, distill 0.0"),
            ("moco_v2", {"distill": 0.1}, "MoCoV2, distill 0.1"),
            ("moco_v2", {"accumulation": 2}, "accumulation 2"),
            ("moco_v2", {"loss_weights": (1.0, 1.0, 0.5)}, r"loss_weights \(1.0, 1.0, 0.5\)"),
        ],
    )
    def test_for_moco_v2_without_additions_only(self, new_method, name, options, found):
        settings = PretrainSettings().model_copy(update={"faithful": True, **options})
        with pytest.raises(TrainingError, match=f"for pretrain.faithful; found: .*{found}"):
            choose_step(new_method(name), settings)


def test_lars_trains_all_that_is_to_be_trained(trainer_of, tmp_path):
    trainer = trainer_of(tmp_path, "byol", epochs=1, optimizer="lars", lr=1.0)
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    method = trainer.method
    expected = [*method.query.parameters(), *method.predictor.parameters()]
    assert trained == {id(p) for p in expected}
    before = [p.detach().clone() for p in expected]
    trainer.fit()
    assert type(trainer.optimizer).__name__ == "LARS"
    assert all(p.isfinite().all() for p in expected)
    moved = [not torch.equal(p, former) for p, former in zip(expected, before, strict=True)]
    assert sum(moved) > 0.9 * len(moved)


class TaughtLoader(HookedLoader):
    """Adds the embeddings of a teacher, which sees three pixels of the first view."""

    def batches(self, epoch, first_step):
        for views in super().batches(epoch, first_step):
            pixels = views[0][:, 0, 3:6, 4]
            yield *views, torch.nn.functional.normalize(pixels + 2, dim=1)


def test_head_of_a_second_lesson_is_fitted_and_trained(tmp_path):
    method = make_method("moco_v2", SPACE, **{k: HEADS[k] for k in RECIPES["moco_v2"].options})
    method.second_lesson = SecondLesson(8, 3, Lesson(3), 1.0)
    trainer = make_trainer(tmp_path, method=method)
    trainer.loader = TaughtLoader(trainer.loader.loader, {})
    assert not trainer.begins_head  # there are no public weights

    def loss():
        views = next(iter(trainer.loader.batches(0, 0)))
        with torch.no_grad():
            return float(method.second_lesson(method.query.encoded(views[0])[0], views[-1]))

    method.activate(SPACE.largest)
    fresh = loss()
    trainer.begin_head()
    fitted = loss()
    assert fitted < 0.3 * fresh
    before = method.second_lesson.head.fc2.weight.clone()
    trainer.fit()
    assert not torch.equal(before, method.second_lesson.head.fc2.weight)
