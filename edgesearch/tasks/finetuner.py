"""The training loop with labels: schedule, states, resumption, the best epoch."""

from __future__ import annotations

import contextlib
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from devices.signals import StopSignals
from edgesearch.errors import Interrupted, TrainingError
from edgesearch.events import Event, Report
from edgesearch.processes import distributed
from edgesearch.tasks.model import TaskModel, outputs_of
from edgesearch.tasks.settings import FinetuneSettings
from edgesearch.tasks.task import Task
from edgesearch.tasks.task_images import FittedImages, SampleLoader
from edgesearch.training.allocator import memory_kept
from edgesearch.training.checkpoint import has_state, load_state, save_state
from edgesearch.training.memory_format import training_format
from edgesearch.training.optimizers import load_optimizer
from edgesearch.training.precision import autocast
from edgesearch.training.randomness import seed_of
from edgesearch.training.run_log import RunLog
from edgesearch.training.torch_device import torch_device

STATE = "state.pt"
WARMUP_SHARE = 0.1
_STEP = 0x57
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


@dataclass
class Position:
    """Position of a training: epochs and steps done, the loss of this epoch, the best epoch so far.

    Attributes:
        stale: Epochs since the best one.
        seconds: Wall time up to the saved state.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best: float = -math.inf
    best_epoch: int = 0
    stale: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class FinetuneEpoch:
    """Figures of an epoch; also a line of metrics.jsonl.

    Attributes:
        monitor: Figures on the images held out of the training images, if any.
    """

    epoch: int
    epochs: int
    loss: float
    lr: float
    duration_s: float
    images_per_s: float
    monitor: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None

    def curves(self) -> dict[str, float]:
        """See `LoggedEpoch`."""
        speed = {"loss": self.loss, "lr": self.lr, "speed/images_per_s": self.images_per_s}
        return {**speed, **{f"validation/{name}": v for name, v in self.monitor.items()}}


class Finetuner:
    """Trains a whole network for a task; can be stopped and resumed.

    With several processes each has one; only the first evaluates, writes and reports.

    Args:
        model: The network, with its initial weights.
        task: The task.
        loader: This process's training samples.
        validation: Images on which the best epoch is chosen, if any.
        folder: Receives state.pt, state.previous.pt, metrics.jsonl and optionally tensorboard/.
        identity: Plain values that identify the training; states of others are refused.
        report: Receives the progress.
        teacher: A trained network to imitate, with `finetune.distill`.

    Raises:
        TrainingError: The device does not exist.
    """

    def __init__(
        self,
        model: TaskModel,
        task: Task,
        loader: SampleLoader,
        validation: FittedImages | None,
        folder: Path,
        *,
        identity: dict[str, Any],
        report: Report,
        teacher: TaskModel | None = None,
    ) -> None:
        self.task, self.loader, self.validation = task, loader, validation
        self.settings = settings = task.settings
        self.seed, self.folder, self.identity, self.report = task.seed, folder, identity, report
        self.device = torch_device(settings.device, "finetune")
        self.model = _placed(model, self.device)
        self.teacher = None if teacher is None else _placed(teacher, self.device).eval()
        self.average: AveragedModel | None = None
        if settings.ema is not None:
            update = _moving_average(settings.ema)
            self.average = AveragedModel(self.model, multi_avg_fn=update, use_buffers=True)
        self.optimizer = _optimizer(self.model, settings)
        self.position = Position()
        self.log = RunLog(folder, settings.tensorboard, "finetune")
        self._best: dict[str, torch.Tensor] | None = None
        self._first = distributed.rank() == 0
        self._saved = self._begun = time.monotonic()
        self._steps_before = 0
        self.seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Wall time of the training, without interruptions."""
        return self.seconds_before + time.monotonic() - self._begun

    @property
    def total_steps(self) -> int:
        """Steps of all epochs."""
        return self.settings.epochs * self.loader.steps_per_epoch

    @memory_kept()
    def fit(self) -> TaskModel:
        """Train to the last epoch, or until no better one comes, from the folder's state if any.

        Returns:
            The network in evaluation mode with the weights of the best epoch, or of the last.

        Raises:
            Interrupted: SIGINT or SIGTERM; the state has been kept.
            TrainingError: A loss is not finite; the last good state has been kept.
            CheckpointError: The state in the folder is damaged or of another training.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        distributed.share_weights(self.model)
        self._saved = self._begun = time.monotonic()
        self._steps_before = self._steps_done
        with StopSignals() as signals, contextlib.closing(self.log) as log:
            if self._first:
                log.begin(self.position.epoch)
            while not self._done:
                self._run_epoch(signals)
        self._adopt(self._best)
        return self.model.eval()

    @memory_kept()
    def time_steps(self, most: int, most_s: float) -> float:
        """Seconds of a step with its images, after one that warms up; no training may follow.

        Args:
            most: Steps after which to end; at least two are made, or an epoch's only one.
            most_s: Time after which to end.
        """
        self._to_training()
        times = [time.monotonic()]
        for images, targets in self.loader.batches(0, 0):
            self._step(images, targets)
            times.append(time.monotonic())
            if len(times) > 2 and (len(times) > most or times[-1] - times[0] > most_s):
                break
        steps = [later - earlier for earlier, later in pairwise(times)]
        return statistics.median(steps[1:] or steps)

    @property
    def _done(self) -> bool:
        patience = self.settings.patience
        ended = patience is not None and self.position.stale >= patience
        return ended or self.position.epoch >= self.settings.epochs

    @property
    def _steps_done(self) -> int:
        return self.position.epoch * self.loader.steps_per_epoch + self.position.step

    def learning_rate(self, step: int) -> float:
        """The head's learning rate of a step: linear warm-up, then cosine decay to 0."""
        lr, total = self.settings.lr, self.total_steps
        warmup = min(self.settings.warmup_steps, int(WARMUP_SHARE * total))
        if step < warmup:
            return lr * (step + 1) / warmup
        return lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    def _run_epoch(self, signals: StopSignals) -> None:
        position, began = self.position, time.monotonic()
        first = position.step
        self._to_training()
        for images, targets in self.loader.batches(position.epoch, position.step):
            position.loss_sum += self._step(images, targets)
            position.step += 1
            self._after_step(signals)
        images_seen = (position.step - first) * self.loader.batch_size
        self._finish_epoch(time.monotonic() - began, images_seen)
        if (stop := _heard(signals)) and not self._done:
            raise Interrupted(self._stopped(stop, f"after epoch {position.epoch}"))

    def _to_training(self) -> None:
        self.model.train()
        if self.settings.probe:
            self.model.backbone.eval()
        elif self.settings.norms == "frozen":
            for module in self.model.backbone.modules():
                if isinstance(module, _NORMS):
                    module.eval()

    def _step(self, images: torch.Tensor, targets: list[Any]) -> float:
        """One step of the optimizer; returns the loss."""
        step, settings = self._steps_done, self.settings
        lr = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        torch.manual_seed(seed_of(self.seed, step, distributed.rank(), _STEP))
        inputs = self.task.preprocess.normalise(images.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher.raw(inputs)
        with autocast(self.device, settings.precision):
            raw = self._raw(inputs)
        loss = self.model.head.loss(raw, self.task.collate(targets, self.device))
        if self.teacher is not None:
            loss = loss + settings.distill * self.task.imitation(raw, wanted)
        loss.backward()
        weights = [w for w in self.model.parameters() if w.grad is not None]
        (value,) = distributed.average([w.grad for w in weights], [float(loss.detach())])  # type: ignore[misc]
        if not math.isfinite(value):
            raise TrainingError(
                "a finite loss",
                f"{value} at step {step}",
                "Set a smaller finetune.lr, or more finetune.warmup_steps.",
            )
        if settings.clip_gradient is not None:
            nn.utils.clip_grad_norm_(weights, settings.clip_gradient)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return value

    def _raw(self, inputs: torch.Tensor) -> Any:
        if not self.settings.probe:
            return self.model.raw(inputs)
        with torch.no_grad():
            maps = self.model.backbone(inputs)
        return self.model.head.raw(maps)

    def _after_step(self, signals: StopSignals) -> None:
        position, steps = self.position, self.loader.steps_per_epoch
        if self._first:
            pace_s = (time.monotonic() - self._begun) / (self._steps_done - self._steps_before)
            left = timedelta(seconds=round(pace_s * (self.total_steps - self._steps_done)))
            loss = position.loss_sum / position.step
            text = f"epoch {position.epoch + 1}, loss {loss:.3f}, {left} left"
            self.report(Event("finetune", text, position.step, steps, within=True))
        if position.step == steps:
            return
        if stop := _heard(signals):
            self._save()
            distributed.wait_for_first()
            raise Interrupted(self._stopped(stop, f"in epoch {position.epoch + 1}"))
        if time.monotonic() - self._saved >= 60 * self.settings.checkpoint_minutes:
            self._save()

    def _stopped(self, stop: signal.Signals, where: str) -> str:
        epochs = self.settings.epochs
        return f"fine-tuning stopped by {stop.name} {where} of {epochs}"

    def _finish_epoch(self, duration_s: float, images: int) -> None:
        """Evaluate, write metrics, then the state: a kill between them repeats the epoch."""
        position, steps = self.position, self.loader.steps_per_epoch
        epoch, monitor = position.epoch + 1, {}
        if self.validation is not None and self._first:
            monitor = evaluate(self._current, self.task, self.validation, self.device)
        monitor = distributed.of_first(monitor)
        loss, best = position.loss_sum / position.step, position.best
        self.position = Position(epoch, 0, 0.0, best, position.best_epoch, position.stale + 1)
        if monitor and monitor[self.task.record.metric] > best:
            self.position.best = monitor[self.task.record.metric]
            self.position.best_epoch, self.position.stale = epoch, 0
            self._best = {k: v.clone() for k, v in self._current.state_dict().items()}
        if self._first:
            report = FinetuneEpoch(
                epoch=epoch,
                epochs=self.settings.epochs,
                loss=loss,
                lr=self.learning_rate(epoch * steps - 1),
                duration_s=duration_s,
                images_per_s=images / max(duration_s, 1e-9),
                monitor=monitor,
                best_epoch=self.position.best_epoch or None,
            )
            self.log.write(report)
            self._save()
            parts = [f"loss {loss:.3f}", *_words(monitor)]
            if monitor:
                parts.append(f"best in epoch {self.position.best_epoch}")
            parts.append(f"{report.images_per_s:,.0f} images/s")
            self.report(Event("finetune", ", ".join(parts), epoch, self.settings.epochs))
        distributed.wait_for_first()

    @property
    def _current(self) -> nn.Module:
        """The network whose weights would be kept now."""
        return self.model if self.average is None else self.average.module

    def _adopt(self, state: dict[str, torch.Tensor] | None) -> None:
        """Give the network the weights of the best epoch, or else the current ones."""
        self.model.load_state_dict(self._current.state_dict() if state is None else state)

    def _save(self) -> None:
        if not self._first:
            return
        save_state(
            self.folder / STATE,
            {
                "identity": self.identity,
                "progress": {**asdict(self.position), "seconds": self.seconds},
                "model": self.model.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "best": self._best,
                "optimizer": self.optimizer.state_dict(),
            },
        )
        self._saved = time.monotonic()

    def _resume(self) -> None:
        state, path = None, self.folder / STATE
        if self._first and has_state(path):
            told = lambda text: self.report(Event("finetune", text))  # noqa: E731
            state = load_state(path, self.identity, told)
        state = distributed.of_first(state)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        load_optimizer(self.optimizer, state["optimizer"])
        self._best, self.position = state["best"], Position(**state["progress"])
        self.seconds_before = self.position.seconds


def _words(figures: dict[str, float]) -> list[str]:
    return [f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items()]


def _heard(signals: StopSignals) -> signal.Signals | None:
    """The signal that any process has received."""
    number = max(each for (each,) in distributed.numbers_of_all(signals.received or 0))
    return signal.Signals(number) if number else None


def _moving_average(most: float) -> Callable[[_Tensors, _Tensors, torch.Tensor | int], None]:
    """The update of a moving average whose momentum rises to `most`.

    After n updates it is (1 + n) / (10 + n) at most, so that the average forgets the beginning as
    fast as the network does. With a fixed momentum of 0.98, a network that was trained for 30 steps
    kept a good half of its initial weights, and statistics of normalisations that fitted neither.
    Source of the rise: TensorFlow's ExponentialMovingAverage with `num_updates`.
    """

    def update(average: _Tensors, current: _Tensors, updates: torch.Tensor | int) -> None:
        momentum = min(most, (1 + int(updates)) / (10 + int(updates)))
        for mean, value in zip(average, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - momentum)
            else:
                mean.copy_(value)

    return update


def _placed(model: TaskModel, device: torch.device) -> TaskModel:
    return model.to(device).to(memory_format=training_format(model, device))


def _optimizer(model: TaskModel, settings: FinetuneSettings) -> torch.optim.Optimizer:
    """Groups by learning rate and decay; `scale` is the share of the head's rate.

    Source of the decay by layers: Clark et al., "ELECTRA" (ICLR 2020), section 3.1.
    """
    groups = list(_groups(model.head, 1.0, settings.weight_decay))
    if settings.probe:
        for weight in model.backbone.parameters():
            weight.requires_grad_(False)
    else:
        scale = settings.backbone_lr
        for name in reversed(model.backbone.parts):
            found = list(_groups(model.backbone.get_submodule(name), scale, settings.weight_decay))
            groups += found
            scale *= settings.lr_decay if found else 1.0
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, settings.lr, settings.momentum)
    return torch.optim.AdamW(groups, settings.lr)


def _groups(module: nn.Module, scale: float, weight_decay: float) -> Iterator[dict[str, Any]]:
    weights = list(module.parameters())
    decayed = [weight for weight in weights if weight.ndim > 1]
    others = [weight for weight in weights if weight.ndim <= 1]
    for params, decay in ((decayed, weight_decay), (others, 0.0)):
        if params:
            yield {"params": params, "weight_decay": decay, "scale": scale}


@torch.no_grad()
def outputs_in_batches(
    model: nn.Module, task: Task, images: torch.Tensor, device: torch.device, batch: int = 64
) -> Iterator[list[Any]]:
    """The predictions of images (N, C, R, R) uint8, batch by batch, in evaluation mode."""
    was_training = model.training
    model.eval()
    for part in images.split(batch):
        inputs = task.preprocess.normalise(part.to(device))
        outputs = outputs_of(model, inputs)
        yield task.predictions([each.float().cpu().numpy() for each in outputs])
    model.train(was_training)


def evaluate(
    model: nn.Module, task: Task, images: FittedImages, device: torch.device
) -> dict[str, float]:
    """The task's figures of a network on images with targets."""
    found: list[Any] = []
    for predictions in outputs_in_batches(model, task, images.images, device):
        found += predictions
    return task.figures(found, images.targets)
