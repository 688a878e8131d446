"""The training loop: schedule, checkpoints, resume, metrics."""

from __future__ import annotations

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

from edgesearch.errors import Interrupted, TrainingError
from edgesearch.pretrain import distributed
from edgesearch.pretrain.checkpoint import has_state, load_state, save_state
from edgesearch.pretrain.encoder import Encoder
from edgesearch.pretrain.epoch_report import EpochReport, Progress
from edgesearch.pretrain.faithful import faithful_step
from edgesearch.pretrain.hardware import CudaMemory, Hardware, compile_ends, out_of_memory
from edgesearch.pretrain.loader import ViewLoader
from edgesearch.pretrain.method import Method, Views
from edgesearch.pretrain.moco_v2 import MoCoV2
from edgesearch.pretrain.passes import Passes
from edgesearch.pretrain.run_log import RunLog
from edgesearch.pretrain.sandwich import StepResult, sandwich_architectures, sandwich_step
from edgesearch.pretrain.stop_signals import StopSignals
from edgesearch.pretrain.trainer_config import OPTIMIZERS, TrainerConfig, load_optimizer
from edgesearch.supernet import SupernetWeights

Monitor = Callable[[SupernetWeights], dict[str, float]]
_State = dict[str, torch.Tensor]


class Trainer:
    """Trains a method's supernet by the sandwich rule; can be stopped and run again.

    Where several processes train together, each has a trainer; the first alone writes and reports.

    Args:
        method: What is trained.
        loader: Where the views of this process come from.
        config: How to train.
        output_dir: Gets state.pt, state.previous.pt, model.safetensors and metrics.jsonl.
        identity: Plain values that tell this run from others; a state of another is refused.
        monitor: Judges the weights now and then.
        on_epoch: Called with each epoch's report.
        hardware: What trains.

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
        on_epoch: Callable[[EpochReport], None] | None = None,
        hardware: Hardware | None = None,
    ) -> None:
        assert isinstance(method, nn.Module)
        self.hardware = hardware or Hardware(device="cpu")
        self.device = self.hardware.torch_device()
        if config.faithful:
            _check_faithful(method, config, self.hardware.accumulation)
        self.method = method.to(self.device).to(memory_format=torch.channels_last)
        if self.hardware.compile:
            compile_ends(method, self.device)
        self.loader = loader
        self.config = config
        self.output_dir = output_dir
        self.identity = identity
        self.monitor = monitor
        self.on_epoch = on_epoch
        self.optimizer = OPTIMIZERS[config.optimizer](
            [weight for weight in method.parameters() if weight.requires_grad],
            config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.progress = Progress()
        self.log = RunLog(output_dir)
        self.stopped_by: signal.Signals | None = None
        self._passes: Passes | None = None
        self._first = distributed.rank() == 0

    def fit(self) -> SupernetWeights:
        """Train to the last epoch, going on from a state in the output folder if there is one.

        Returns:
            The weights, as in model.safetensors.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state of the last whole step has been kept.
                One that comes in the last step or later only sets `stopped_by`.
            TrainingError: A loss is not finite; the state before this epoch has been kept.
            CheckpointError: The state in the output folder is damaged or of another run.
        """
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self._resume()
        distributed.share_weights(self.method)
        if self._first:
            self.log.begin(self.progress.epoch)
        self.method.train()
        with StopSignals() as signals:
            while self.progress.epoch < self.config.epochs:
                self._run_epoch(signals)
        self.stopped_by = _stop(signals)
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

    def weights(self) -> SupernetWeights:
        """The present weights."""
        query = _states(self.method.query)
        key = query if self.method.key is None else _states(self.method.key)
        return SupernetWeights(self.method.space, *query[:2], *key[:2], query[2], key[2])

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then half a cosine to 0."""
        total = self.config.epochs * self.loader.steps_per_epoch
        warmup = self.config.warmup_epochs * self.loader.steps_per_epoch
        if step < warmup:
            return self.config.lr * (step + 1) / warmup
        done = (step - warmup) / max(1, total - warmup)
        return self.config.lr * 0.5 * (1 + math.cos(math.pi * done))

    def _run_epoch(self, signals: StopSignals) -> None:
        progress, config = self.progress, self.config
        start, first_step = time.perf_counter(), progress.step
        lr = 0.0
        for views in self.loader.batches(progress.epoch, first_step):
            step = progress.epoch * self.loader.steps_per_epoch + progress.step
            lr = self.learning_rate(step)
            progress.add(self._train_step(views, step, lr))
            stop = _stop(signals)
            if stop and progress.step < self.loader.steps_per_epoch:
                self._save_state()
                distributed.wait_for_first()
                raise Interrupted(
                    f"pre-training stopped by {stop.name} in epoch "
                    f"{progress.epoch + 1} of {config.epochs}"
                )
        duration = time.perf_counter() - start
        assert self._passes is not None
        images = (progress.step - first_step) * self._passes.batch_size
        self._finish_epoch(lr, duration, images)
        done, stop = self.progress.epoch, _stop(signals)
        if stop and done < config.epochs:
            raise Interrupted(
                f"pre-training stopped by {stop.name} after epoch {done} of {config.epochs}"
            )

    def _train_step(self, views: Views, step: int, lr: float) -> StepResult:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self._passes is None:
            batch_size = len(views[0]) * distributed.world_size()
            self._passes = self.hardware.passes(self.method, batch_size, self.config.seed)
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
        if result is None:
            memory = CudaMemory(self.device)
            raise out_of_memory(self.method, (first, second), self._passes, memory, found)
        if not result.finite:
            raise TrainingError(
                "finite losses",
                f"{result.losses} at step {step} (epoch {self.progress.epoch + 1})",
                "Set a smaller pretrain.lr or more pretrain.warmup_epochs; "
                "the state before this epoch has been kept.",
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

    def _finish_epoch(self, lr: float, duration_s: float, images: int) -> None:
        """Write the epoch's metrics, then weights and state: a kill between them repeats it."""
        epoch, config = self.progress.epoch + 1, self.config
        replaced = distributed.total(self.loader.replaced)
        if not self._first:
            self.progress = Progress(epoch)
            distributed.wait_for_first()
            return
        every = config.monitor_every_epochs
        due = every > 0 and (epoch == config.epochs or epoch % every == 0)
        weights = self.weights()
        report = self.progress.report(
            epochs=config.epochs,
            lr=lr,
            duration_s=duration_s,
            images=images,
            replaced_images=replaced,
            monitor=self.monitor(weights) if self.monitor and due else {},
        )
        self.progress = Progress(epoch)
        self.log.write(report)
        weights.save(self.weights_path)
        self._save_state()
        if self.on_epoch:
            self.on_epoch(report)
        distributed.wait_for_first()

    def _save_state(self) -> None:
        if not self._first:
            return
        save_state(
            self.state_path,
            {
                "identity": self.identity,
                "progress": vars(self.progress),
                "threads": torch.get_num_threads(),
                "processes": distributed.world_size(),
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def _resume(self) -> None:
        state = None
        if self._first and has_state(self.state_path):
            state = load_state(self.state_path, self.identity)
        state = distributed.of_first(state)
        if state is None:
            return
        self.method.load_state_dict(state["method"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.progress = Progress(**state["progress"])
        if not self._first:
            return
        former, now = state.get("processes", 1), distributed.world_size()
        if former != now:
            warnings.warn(
                f"this run was begun with {former} processes and goes on with {now}: its results "
                "differ by rounding alone only where pretrain.bn_group_size is set",
                stacklevel=2,
            )
        if state["threads"] != torch.get_num_threads():
            warnings.warn(
                f"this run was begun with {state['threads']} threads and goes on with "
                f"{torch.get_num_threads()}: its last digits will differ (pretrain.threads)",
                stacklevel=2,
            )


def _stop(signals: StopSignals) -> signal.Signals | None:
    """The signal that any of the processes has received."""
    number = distributed.highest(signals.received or 0)
    return signal.Signals(number) if number else None


def _check_faithful(method: Method, config: TrainerConfig, accumulation: int) -> None:
    plain = config.loss_weights == (1, 1, 1) and config.distill == 0 and accumulation == 1
    if isinstance(method, MoCoV2) and plain:
        return
    raise TrainingError(
        "moco_v2 without distillation, weights of losses and accumulation for pretrain.faithful",
        f"{type(method).__name__}, distill {config.distill}, loss_weights {config.loss_weights}, "
        f"accumulation {accumulation}",
        "Set pretrain.faithful=false.",
    )


def _states(encoder: Encoder) -> tuple[_State, _State, _State | None]:
    """States of backbone, projector and, where there is one, projector for places."""
    dense = encoder.dense_projector
    return (
        _on_cpu(encoder.supernet.backbone),
        _on_cpu(encoder.projector),
        None if dense is None else _on_cpu(dense),
    )


def _on_cpu(module: nn.Module) -> _State:
    return {name: tensor.cpu() for name, tensor in module.state_dict().items()}
