"""The training loop: schedule, checkpoints, resume, metrics."""

from __future__ import annotations

import contextlib
import math
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from devices.signals import StopSignals
from edgesearch.errors import Interrupted, TrainingError
from edgesearch.pretrain.checkpoint import has_state, load_state, save_state
from edgesearch.pretrain.dead_worker import dead_worker
from edgesearch.pretrain.encoder import states_of
from edgesearch.pretrain.epoch_report import EpochReport, Progress, StepReport
from edgesearch.pretrain.epoch_timer import EpochTimer
from edgesearch.pretrain.faithful import check_faithful, faithful_step
from edgesearch.pretrain.hardware import (
    CudaMemory,
    Hardware,
    compile_ends,
    move,
    no_memory_for_views,
    out_of_memory,
)
from edgesearch.pretrain.loader import ViewLoader
from edgesearch.pretrain.loss_watch import UNSTABLE, LossWatch, chance_of
from edgesearch.pretrain.method import Method, Views
from edgesearch.pretrain.moco_v2 import MoCoV2
from edgesearch.pretrain.passes import Passes
from edgesearch.pretrain.run_log import RunLog
from edgesearch.pretrain.sandwich import StepResult, sandwich_architectures, sandwich_step
from edgesearch.pretrain.trainer_config import OPTIMIZERS, TrainerConfig, load_optimizer
from edgesearch.processes import distributed
from edgesearch.supernet.weights import SupernetWeights

Monitor = Callable[[SupernetWeights], dict[str, float]]


class Trainer:
    """Trains a method's supernet by the sandwich rule; can be stopped and run again.

    Where several processes train together, each has a trainer; the first alone writes and reports.

    Args:
        method: What is trained.
        loader: Where the views of this process come from.
        config: How to train.
        output_dir: Gets state.pt, state.previous.pt, model.safetensors, best.safetensors (where
            there is a monitor), metrics.jsonl and, if asked for, tensorboard/.
        identity: Plain values that tell this run from others; a state of another is refused.
        monitor: Judges the weights now and then.
        hardware: What trains; a CPU as it is if None.
        on_epoch: Called with each epoch's report.
        on_step: Called after each step.
        notice: Is told of what the user should know and nothing can be done about.

    Raises:
        TrainingError: The method cannot be trained so.
    """

    def __init__(
        self,
        method: Method,
        loader: ViewLoader,
        config: TrainerConfig,
        output_dir: Path,
        *,
        identity: dict[str, Any],
        monitor: Monitor | None = None,
        hardware: Hardware | None = None,
        on_epoch: Callable[[EpochReport], None] | None = None,
        on_step: Callable[[StepReport], None] | None = None,
        notice: Callable[[str], None] = warnings.warn,
    ) -> None:
        assert isinstance(method, nn.Module)
        self.hardware = hardware or Hardware(device="cpu")
        self.device = self.hardware.torch_device()
        if config.faithful:
            check_faithful(method, config, self.hardware.accumulation)
        self.method = method
        move(method, self.device)
        if self.hardware.compile:
            compile_ends(method, self.device, self.hardware.accumulation)
        self.loader = loader
        self.config = config
        self.output_dir = output_dir
        self.identity = identity
        self.monitor = monitor
        self.on_epoch = on_epoch
        self.on_step = on_step
        self.notice = notice
        self.optimizer = OPTIMIZERS[config.optimizer](
            [weight for weight in method.parameters() if weight.requires_grad],
            config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.progress = Progress()
        self.log = RunLog(output_dir, config.tensorboard)
        self.stopped_by: signal.Signals | None = None
        self._watch, self._chance = LossWatch(), 0.0
        self._begun = self._saved = time.monotonic()
        self._steps_before = 0
        self._passes: Passes | None = None
        self._replaced_by_others = 0
        self._first = distributed.rank() == 0

    def fit(self) -> SupernetWeights:
        """Train to the last epoch, going on from a state in the output folder if there is one.

        Returns:
            The weights, as in model.safetensors.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the last good state has been kept. A signal that
                comes in the last step or later only sets `stopped_by`.
            TrainingError: A loss or a weight is not finite, the loss has exploded, or a process
                that loads images has died; the last good state has been kept.
            CheckpointError: The state in the output folder is damaged or of another run.
        """
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self._resume()
        distributed.share_weights(self.method)
        self._begun = self._saved = time.monotonic()
        self._steps_before = self._steps_done
        self.method.train()
        with StopSignals() as signals, contextlib.closing(self.log) as log:
            if self._first:
                log.begin(self.progress.epoch)
            while self.progress.epoch < self.config.epochs:
                self._run_epoch(signals)
        self.stopped_by = self._heard(signals)
        weights = self.weights()
        if self._first and not self.weights_path.exists():
            weights.save(self.weights_path)
        return weights

    @property
    def state_path(self) -> Path:
        """The file that a run goes on from."""
        return self.output_dir / "state.pt"

    @property
    def weights_path(self) -> Path:
        """The weights after the last whole epoch."""
        return self.output_dir / "model.safetensors"

    @property
    def best_path(self) -> Path:
        """The weights after the epoch with the best mean of what the monitor found."""
        return self.output_dir / "best.safetensors"

    def weights(self) -> SupernetWeights:
        """The present weights."""
        query = states_of(self.method.query)
        key = query if self.method.key is None else states_of(self.method.key)
        name = self.identity.get("pretrain.method")
        return SupernetWeights(self.method.space, *query[:2], *key[:2], query[2], key[2], name)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then half a cosine to 0."""
        total = self.config.epochs * self.loader.steps_per_epoch
        warmup = self.config.warmup_epochs * self.loader.steps_per_epoch
        if step < warmup:
            return self.config.lr * (step + 1) / warmup
        done = (step - warmup) / max(1, total - warmup)
        return self.config.lr * 0.5 * (1 + math.cos(math.pi * done))

    def _run_epoch(self, signals: StopSignals) -> None:
        progress, timer = self.progress, EpochTimer(self.loader, distributed.world_size())
        replaced, whole = progress.replaced, True
        try:
            for views in timer.batches(progress.epoch, progress.step):
                whole = False
                result = self._train_step(views, self._steps_done)
                progress.add(result)
                progress.replaced = replaced + self.loader.replaced
                whole = True
                self._after_step(result, timer, signals)
        except RuntimeError as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise no_memory_for_views(str(error)) from error
            dead = dead_worker(error)
            if dead is None:
                raise
            if whole:
                self._save_state()
            raise dead from error
        self._finish_epoch(timer)
        done, epochs, stop = self.progress.epoch, self.config.epochs, self._heard(signals)
        if stop and done < epochs:
            raise Interrupted(f"pre-training stopped by {stop.name} after epoch {done} of {epochs}")

    @property
    def _steps_done(self) -> int:
        """Steps since the training began."""
        return self.progress.epoch * self.loader.steps_per_epoch + self.progress.step

    def _after_step(self, result: StepResult, timer: EpochTimer, signals: StopSignals) -> None:
        """Watch the loss, report, and within an epoch save the state when it is time."""
        progress, config, steps = self.progress, self.config, self.loader.steps_per_epoch
        where = f"step {self._steps_done - 1} (epoch {progress.epoch + 1})"
        is_last = self._steps_done == config.epochs * steps
        self._watch.add(result.losses[0], where, chance=self._chance, last=is_last)
        if self.on_step:
            self.on_step(self._step_report(timer, result.spread))
        if progress.step == steps:
            return
        if stop := self._heard(signals):
            self._save_state()
            distributed.wait_for_first()
            place = f"epoch {progress.epoch + 1} of {config.epochs}"
            raise Interrupted(f"pre-training stopped by {stop.name} in {place}")
        if time.monotonic() - self._saved >= 60 * config.checkpoint_minutes:
            self._save_state()

    def _heard(self, signals: StopSignals) -> signal.Signals | None:
        """The signal that any of the processes has received; hears what they replaced, too."""
        own = self.progress.replaced
        numbers, replaced = zip(
            *distributed.numbers_of_all(signals.received or 0, own), strict=True
        )
        self._replaced_by_others = sum(replaced) - own
        return signal.Signals(max(numbers)) if max(numbers) else None

    def _step_report(self, timer: EpochTimer, spread: float) -> StepReport:
        progress, steps = self.progress, self.loader.steps_per_epoch
        pace_s = (time.monotonic() - self._begun) / (self._steps_done - self._steps_before)
        return StepReport(
            epoch=progress.epoch + 1,
            epochs=self.config.epochs,
            step=progress.step,
            steps=steps,
            loss=progress.loss_largest,
            images_per_s=timer.images_per_s,
            remaining_s=pace_s * (self.config.epochs * steps - self._steps_done),
            spread=spread,
            collapsed=progress.collapsed(steps),
        )

    def _train_step(self, views: Views, step: int) -> StepResult:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        if self._passes is None:
            batch_size = len(views[0]) * distributed.world_size()
            self._passes = self.hardware.passes(self.method, batch_size, self.config.seed)
            self._chance = chance_of(self.method, batch_size)
        self._passes.step = step
        first, second = (
            view.to(self.device, non_blocking=True, memory_format=torch.channels_last)
            for view in views
        )
        try:
            result = self._step_on((first, second), self._passes)
        except torch.cuda.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)
            found, result = str(error), None
        if result is None:  # not within `except`, where the error still holds what it met
            memory = CudaMemory(self.device)
            raise out_of_memory(self.method, (first, second), self._passes, memory, found)
        if not result.finite:
            raise TrainingError(
                "finite losses",
                f"{result.losses} at step {step} (epoch {self.progress.epoch + 1})",
                UNSTABLE,
            )
        return result

    def _step_on(self, views: Views, passes: Passes) -> StepResult:
        config, step = self.config, passes.step
        architectures = sandwich_architectures(
            self.method.space, config.random_subnets, config.seed, step
        )
        if self.progress.epoch < config.largest_only_epochs:
            architectures = architectures[:1]
        if config.faithful:
            assert isinstance(self.method, MoCoV2)
            return faithful_step(self.method, views, architectures, self.optimizer, passes)
        largest, smallest, each_random = config.loss_weights
        return sandwich_step(
            self.method,
            views,
            architectures,
            self.optimizer,
            step / (config.epochs * self.loader.steps_per_epoch),
            weights=[largest, smallest, *[each_random] * config.random_subnets],
            distill=config.distill,
            passes=passes,
        )

    def _finish_epoch(self, timer: EpochTimer) -> None:
        """Write the epoch's metrics, then weights and state: a kill between them repeats it."""
        epoch, config = self.progress.epoch + 1, self.config
        self._check_weights()
        replaced = sum(count for (count,) in distributed.numbers_of_all(self.progress.replaced))
        self._replaced_by_others = 0
        if not self._first:
            self.progress = self.progress.next_epoch()
            distributed.wait_for_first()
            return
        every = config.monitor_every_epochs
        due = every > 0 and (epoch == config.epochs or epoch % every == 0)
        good = self._watch.usual
        weights = self.weights()
        monitor = self.monitor(weights) if self.monitor and due and good else {}
        report = self.progress.report(
            epochs=config.epochs,
            lr=self.learning_rate(self._steps_done - 1),
            timer=timer,
            replaced=replaced,
            monitor=monitor,
            best_epoch=self.log.best_epoch(epoch, monitor),
        )
        self.progress = self.progress.next_epoch()
        self.log.write(report)
        if good:
            weights.save(self.weights_path)
        else:
            self.notice(f"the loss is high as epoch {epoch} ends: weights and state are not kept")
        if report.best_epoch == epoch:
            weights.save(self.best_path)
        self._save_state()
        if self.on_epoch:
            self.on_epoch(report)
        distributed.wait_for_first()

    def _check_weights(self) -> None:
        """Make sure that no state with infinite weights takes the place of a good one."""
        for name, tensor in self.method.state_dict().items():
            if not tensor.isfinite().all():
                raise TrainingError(
                    "finite weights",
                    f"others in {name} after step {self._steps_done - 1}",
                    UNSTABLE,
                )

    def _save_state(self) -> None:
        """Keep the state, unless its loss may be exploding: then the last good one is kept."""
        if not self._first or not self._watch.usual:
            return
        self._check_weights()
        replaced = self.progress.replaced + self._replaced_by_others
        save_state(
            self.state_path,
            {
                "identity": self.identity,
                "progress": vars(self.progress) | {"replaced": replaced},
                "watch": vars(self._watch),
                "threads": torch.get_num_threads(),
                "processes": distributed.world_size(),
                "accumulation": self.hardware.accumulation,
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )
        self._saved = time.monotonic()

    def _resume(self) -> None:
        state = None
        if self._first and has_state(self.state_path):
            state = load_state(self.state_path, self.identity, self.notice)
        state = distributed.of_first(state)
        if state is None:
            return
        self.method.load_state_dict(state["method"])
        load_optimizer(self.optimizer, state["optimizer"])
        progress = dict(state["progress"])
        level = progress.pop("level", 0.0)  # of the watch, in a state of a former version
        self._watch = LossWatch(**state.get("watch", {"level": level}))
        self.progress = Progress(**progress)
        if not self._first:
            self.progress.replaced = 0  # the first counts them
            return
        former, now = state.get("processes", 1), distributed.world_size()
        if former != now:
            self.notice(
                f"this run was begun with {former} processes and goes on with {now}: its results "
                "differ by rounding alone only where pretrain.bn_group_size is set"
            )
        former, now = state.get("accumulation", 1), self.hardware.accumulation
        if former != now and self.hardware.bn_group_size is None:
            self.notice(
                f"this run was begun with pretrain.accumulation {former} and goes on with {now}: "
                "its results differ by rounding alone only where pretrain.bn_group_size is set"
            )
        if state["threads"] != torch.get_num_threads():
            self.notice(
                f"this run was begun with {state['threads']} threads and goes on with "
                f"{torch.get_num_threads()}: its last digits will differ (pretrain.threads)"
            )
