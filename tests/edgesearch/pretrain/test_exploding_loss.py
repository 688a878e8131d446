"""A loss that explodes stops a training, wherever in an epoch; what is kept is from before it."""

import json
import math
import os
import signal
import socket
import subprocess
import sys

import cloudpickle  # comes with nni
import pytest
import torch

from edgesearch.data.open_images import open_images
from edgesearch.data.preprocess import Preprocess
from edgesearch.data.settings import DataSettings
from edgesearch.errors import Interrupted, TrainingError
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.pretrain.checkpoint import save_state
from edgesearch.pretrain.loader import Share, make_loader
from edgesearch.pretrain.simclr import SimCLR
from edgesearch.pretrain.trainer import Trainer
from edgesearch.pretrain.trainer_config import TrainerConfig
from edgesearch.pretrain.views import Augmentation
from edgesearch.processes import distributed

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
BATCH, STEPS = 4, 22
IMAGES = open_images(DataSettings(source="digits"), 1).train.subset(range(BATCH * STEPS))
EACH_STEP = 1e-9
"""Minutes between states so short that each step leaves one."""


def make_trainer(folder, loss_of=lambda step, loss: loss, *, epochs=7, minutes=60, **options):
    """A training of epochs of 22 steps, whose loss at each step can be made another."""
    share = Share(distributed.rank(), distributed.world_size())
    views = (Augmentation(flip_probability=0.0),) * 2
    preprocess = Preprocess(8, 1, (0.3,), (0.37,))
    loader = make_loader(
        IMAGES, views, preprocess, batched=True, batch_size=BATCH, seed=0, workers=0, share=share
    )
    method = SimCLR(SPACE, projector_hidden_dim=8, projector_dim=4)
    config = TrainerConfig(
        epochs=epochs,
        lr=1e-3,
        random_subnets=0,
        checkpoint_minutes=minutes,
        monitor_every_epochs=1,
    )
    trainer = Trainer(method, loader, config, folder, **{"identity": {}, **options})
    loss = method.loss

    def changed(views, targets):
        found = loss(views, targets)
        step = trainer.progress.epoch * STEPS + trainer.progress.step
        return found._replace(value=loss_of(step, found.value))

    method.loss = changed
    return trainer


def ten_times_from(first, until=math.inf):
    return lambda step, loss: loss * (10 if first <= step < until else 1)


def stands_at(path):
    progress = torch.load(path)["progress"]
    return progress["epoch"], progress["step"]


def assert_same_state(folder, expected_folder):
    state, expected = (torch.load(each / "state.pt") for each in (folder, expected_folder))
    for part in ("progress", "watch"):
        assert state[part] == expected[part]
    assert all(torch.equal(state["method"][k], v) for k, v in expected["method"].items())
    names = ("model.safetensors", "best.safetensors")
    weights = [[(each / n).read_bytes() for n in names] for each in (folder, expected_folder)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("first", "minutes", "kept"),
    [
        (4 * STEPS + 15, 60, (4, 0)),
        (4 * STEPS + 15, EACH_STEP, (4, 15)),
        (3 * STEPS - 1, EACH_STEP, (2, 21)),
        (STEPS + 3, 60, (1, 0)),
    ],
)
def test_stops_the_run_and_leaves_what_was_good(tmp_path, first, minutes, kept):
    weights = {}
    trainer = make_trainer(
        tmp_path,
        ten_times_from(first),
        minutes=minutes,
        monitor=lambda _: {"rising": trainer.progress.epoch},
        on_epoch=lambda report: weights.update(
            {report.epoch: (tmp_path / "model.safetensors").read_bytes()}
        ),
    )
    end = first + 49
    message = (
        "a loss of at most .*, 3 times the highest mean so far; found: 50 more high steps than "
        rf"others, up to step {end} \(epoch {end // STEPS + 1}\), the last .* Set a smaller "
    )
    with pytest.raises(TrainingError, match=message):
        trainer.fit()
    assert stands_at(tmp_path / "state.pt") == kept
    for name in ("model.safetensors", "best.safetensors"):
        assert (tmp_path / name).read_bytes() == weights[kept[0]]


def test_of_a_queue_that_fills_does_not_stop_it(tmp_path):
    def rising(step, loss):
        return loss * 0 + math.log1p(4 * min(step, 150))

    make_trainer(tmp_path, rising).fit()
    assert stands_at(tmp_path / "state.pt") == (7, 0)
    assert stands_at(tmp_path / "state.previous.pt") == (6, 0)


def test_a_spike_at_the_end_of_an_epoch_stops_nothing(tmp_path):
    seen, told = [], []
    spike = 3 * STEPS - 1
    trainer = make_trainer(
        tmp_path,
        ten_times_from(spike, spike + 1),
        epochs=5,
        monitor=lambda _: {"rising": trainer.progress.epoch},
        on_epoch=lambda _: seen.append(stands_at(tmp_path / "state.pt")[0]),
        notice=told.append,
    )
    trainer.fit()
    assert told == ["the loss is high as epoch 3 ends: weights and state are not kept"]
    assert seen == [1, 2, 2, 4, 5]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [line["best_epoch"] for line in lines] == [1, 2, 2, 4, 5]


@pytest.mark.parametrize(("high_steps", "stopped"), [(1, False), (2, True)])
def test_at_the_end_of_the_run(tmp_path, high_steps, stopped):
    trainer = make_trainer(tmp_path, ten_times_from(3 * STEPS - high_steps), epochs=3)
    if stopped:
        with pytest.raises(
            TrainingError, match=r"2 more high steps than others, up to step 65 \(epoch 3\)"
        ):
            trainer.fit()
    else:
        trainer.fit()
    assert stands_at(tmp_path / "state.pt") == ((2, 0) if stopped else (3, 0))


def test_a_signal_while_it_may_be_exploding_keeps_the_good_state(tmp_path):
    first = 2 * STEPS + 5

    def stop(report):
        if (report.epoch, report.step) == (3, 20):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        make_trainer(tmp_path, ten_times_from(first), minutes=EACH_STEP, on_step=stop).fit()
    assert stands_at(tmp_path / "state.pt") == (2, 5)
    with pytest.raises(TrainingError, match=f"up to step {first + 49} "):
        make_trainer(tmp_path, ten_times_from(first), minutes=EACH_STEP).fit()


def in_two(task):
    """Run a task in two fresh interpreters that know of each other, and say how they ended."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = (
        "import sys, cloudpickle, torch; torch.set_num_threads(1); "
        "cloudpickle.loads(sys.stdin.buffer.read())()"
    )
    running = []
    for rank in range(2):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}
        names |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
        environment = {**os.environ, **{name: str(value) for name, value in names.items()}}
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        process.stdin.write(cloudpickle.dumps(task))
        process.stdin.close()
        running.append(process)
    return [process.wait(timeout=240) for process in running]


class Killed(BaseException):
    """Ends a training without another word."""


class TestGoingOn:
    """After spikes in the first epochs, one of them at an epoch's end."""

    @staticmethod
    def trainer(folder, killed_at=None):
        def spikes(step, loss):
            if step == killed_at:
                raise Killed
            return loss * (10 if step in (30, 2 * STEPS - 1, 2 * STEPS) else 1)

        monitor = {"monitor": lambda _: {"same": 0.5}}
        return make_trainer(folder, spikes, epochs=4, minutes=EACH_STEP, **monitor)

    @pytest.fixture(scope="class")
    @classmethod
    def undisturbed(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("undisturbed")
        cls.trainer(folder).fit()
        return folder

    @pytest.mark.parametrize("killed_at", [10, 31, 2 * STEPS, 2 * STEPS + 9])
    def test_after_a_kill(self, tmp_path, undisturbed, killed_at):
        with pytest.raises(Killed):
            self.trainer(tmp_path, killed_at).fit()
        self.trainer(tmp_path).fit()
        assert_same_state(tmp_path, undisturbed)

    def test_from_a_state_of_a_former_version(self, tmp_path, undisturbed):
        with pytest.raises(Killed):
            self.trainer(tmp_path, 70).fit()
        state = torch.load(tmp_path / "state.pt")
        former = {key: value for key, value in state.items() if key not in ("format", "watch")}
        former["progress"].pop("same")
        former["progress"]["level"] = 9.0
        save_state(tmp_path / "state.pt", former)
        self.trainer(tmp_path).fit()
        state, expected = (torch.load(each / "state.pt") for each in (tmp_path, undisturbed))
        assert state["watch"]["level"] == 9.0
        assert all(torch.equal(state["method"][k], v) for k, v in expected["method"].items())


def test_two_processes_stop_at_the_same_step(tmp_path):
    """Where the loss of one of them explodes alone."""
    first = 2 * STEPS + 15

    def task():
        rank = None

        def loss_of(step, loss):
            return loss * (30 if step >= first and rank == 1 else 1)

        with distributed.processes():
            rank = distributed.rank()
            try:
                make_trainer(tmp_path / "run", loss_of).fit()
            except TrainingError as error:
                (tmp_path / f"said{rank}").write_text(str(error))

    assert in_two(task) == [0, 0]
    said = [(tmp_path / f"said{rank}").read_text() for rank in range(2)]
    assert said[0] == said[1]
    assert f"50 more high steps than others, up to step {first + 49} (epoch 5)" in said[0]
    assert stands_at(tmp_path / "run" / "state.pt") == (2, 0)
