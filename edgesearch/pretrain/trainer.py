"""The training loop: schedule, states, resumption, metrics."""

from __future__ import annotations

import contextlib
import math
import signal
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from devices.signals import StopSignals
from edgesearch.errors import Interrupted, TrainingError
from edgesearch.pretrain.computation import MEMORY_FORMATS, as_given
from edgesearch.pretrain.encoder import states_of
from edgesearch.pretrain.faithful import choose_step
from edgesearch.pretrain.hardware import (
    CudaMemory,
    compile_ends,
    move,
    no_memory_for_views,
    out_of_memory,
)
from edgesearch.pretrain.lessons import fit_head, paired
from edgesearch.pretrain.loader import ViewLoader, WorkersError, dead_worker
from edgesearch.pretrain.loss_watch import UNSTABLE, LossWatch, chance_of
from edgesearch.pretrain.method import Method, Views
from edgesearch.pretrain.passes import Passes
from edgesearch.pretrain.progress import EpochTimer, Listener, Progress, StepReport
from edgesearch.pretrain.sandwich import StepResult, sandwich_architectures
from edgesearch.processes import distributed
from edgesearch.space import Architecture
from edgesearch.supernet.projector import Projector
from edgesearch.supernet.weights import Origin, SupernetWeights
from edgesearch.training.allocator import memory_kept
from edgesearch.training.checkpoint import has_state, load_state, save_state
from edgesearch.training.optimizers import OPTIMIZERS, load_optimizer
from edgesearch.training.run_log import RunLog
from edgesearch.training.torch_device import torch_device

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import PretrainSettings
    from edgesearch.pretrain.taught_views import Teaching

Monitor = Callable[[SupernetWeights], dict[str, float]]
WEIGHTS = "model.safetensors"
BEST = "best.safetensors"
STATE = "state.pt"
FITTED = 1024
"""Images to which a teacher's head is fitted before the first step, about."""
FITTED_PLACES = 4096
"""Places of maps to which it is fitted at most, about: each is a row as an image is."""


@dataclass(frozen=True)
class StepTime:
    """How long a training takes here, from a few real steps.

    Attributes:
        step_s: Time of a step that trains all subnets.
        start_s: Time until the first batch of an epoch is there.
        steps: Number of steps that were timed.
    """

    step_s: float
    start_s: float
    steps: int


class Trainer:
    """Trains a method's supernet by the sandwich rule; can be stopped and resumed.

    With several processes each has a trainer; only the first writes and reports.

    Args:
        method: The method to train.
        loader: Source of this process's views.
        settings: The section `pretrain`.
        seed: Seed of random subnets and key groups.
        folder: Receives state.pt, state.previous.pt, model.safetensors, best.safetensors (with a
            monitor), metrics.jsonl and optionally tensorboard/.
        identity: Plain values that identify the run; states of other runs are refused.
        monitor: Evaluates the weights after some epochs.
        listener: Receives the progress.
        origin: The public weights that the supernet began with.
        teaching: Computes the targets of a teacher before the first step.

    Raises:
        TrainingError: The method cannot be trained with these settings.
    """

    def __init__(
        self,
        method: Method,
        loader: ViewLoader,
        settings: PretrainSettings,
        seed: int,
        folder: Path,
        *,
        identity: dict[str, Any],
        monitor: Monitor | None = None,
        listener: Listener | None = None,
        origin: Origin | None = None,
        teaching: Teaching | None = None,
    ) -> None:
        self.method = method
        self.loader = loader
        self.settings = settings
        self.seed = seed
        self.folder = folder
        self.state_path, self.weights_path = folder / STATE, folder / WEIGHTS
        self.identity = identity
        self.monitor = monitor
        self.listener = listener or Listener()
        self.origin, self.teaching = origin, teaching
        self.device = torch_device(settings.device)
        self._step = choose_step(method, settings)
        computation = as_given(settings)
        self._memory_format = MEMORY_FORMATS[computation.memory_format]
        self._passes = Passes(
            method,
            settings.batch_size,
            group_size=settings.bn_group_size,
            accumulation=settings.accumulation,
            precision=computation.precision,
            seed=seed,
        )
        move(method, self.device, self._memory_format)
        if settings.compile:
            compile_ends(method, self.device, settings.accumulation)
        self.optimizer = OPTIMIZERS[settings.optimizer](
            [weight for weight in method.parameters() if weight.requires_grad],
            settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.progress = Progress()
        self.log = RunLog(folder, settings.tensorboard)
        self.stopped_by: signal.Signals | None = None
        self._watch = LossWatch()
        self._chance = chance_of(method, settings.batch_size)
        self._total_steps = settings.epochs * loader.steps_per_epoch
        self._begun = self._saved = time.monotonic()
        self._steps_before = 0
        self._replaced_by_others = 0
        self._first = distributed.rank() == 0

    @memory_kept()
    def fit(self) -> SupernetWeights:
        """Train to the last epoch, resuming from the folder's state if there is one.

        Returns:
            The weights, as in model.safetensors.

        Raises:
            Interrupted: SIGINT or SIGTERM; the last good state has been kept. A signal in the
                last step or later only sets `stopped_by`.
            TrainingError: A loss or weight is not finite, the loss has exploded, or a process that
                loads images has died; the last good state has been kept.
            CheckpointError: The state in the folder is damaged or of another run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        distributed.share_weights(self.method)
        self._begun = self._saved = time.monotonic()
        self._steps_before = self._steps_done
        self.method.train()
        with StopSignals() as signals, contextlib.closing(self.log) as log:
            self._teach(signals)
            if self.begins_head and not self._steps_done:
                self.begin_head()
            if self._first:
                log.begin(self.progress.epoch)
            while self.progress.epoch < self.settings.epochs:
                self._run_epoch(signals)
        self.stopped_by = self._heard(signals)
        weights = self.weights()
        if self._first and not self.weights_path.exists():
            weights.save(self.weights_path)
        return weights

    @property
    def taught_bytes(self) -> int:
        """Room that the embeddings or maps take which the teacher has yet to compute."""
        if self.teaching is None or self.settings.epochs == 0:
            return 0
        return self.teaching.cache.bytes_left

    def _teach(self, signals: StopSignals) -> None:
        """Have the teacher embed the images, in the first process."""
        if self.teaching is None or self.settings.epochs == 0:
            return

        def check() -> None:
            if signals.received:
                stop = signal.Signals(signals.received).name
                raise Interrupted(f"pre-training stopped by {stop} while the teacher embeds images")

        if self._first:
            self.teaching.fill(check)
        distributed.wait_for_first()

    @memory_kept()
    def time_steps(self, most: int, most_s: float) -> StepTime:
        """Time some steps, one at least, after one that warms up; no training may follow.

        Args:
            most: Steps after which to end. The first ones find batches that were prepared ahead:
                only after those does a loader that is too slow show.
            most_s: Time after which to end.
        """
        self.method.train()
        if self.teaching is not None:
            self.teaching.cache.pretend()
        self.progress.epoch = self.settings.largest_only_epochs  # from then on all are trained
        begun = time.monotonic()
        batches = self.loader.batches(0, 0)
        times: list[float] = []
        with contextlib.closing(batches):  # type: ignore[type-var]
            for step, views in enumerate(batches):
                if step == 0:
                    start_s = time.monotonic() - begun
                self._train_step(views, step)
                times.append(time.monotonic())
                if step and (step == most or times[-1] - times[0] > most_s):
                    break
        steps = [later - earlier for earlier, later in pairwise(times)]
        if not steps:  # an epoch of one step
            steps = [times[0] - begun - start_s]
        return StepTime(statistics.median(steps), start_s, len(steps))

    @property
    def begins_head(self) -> bool:
        """Whether a teacher's head of one layer is fitted to the features of public weights."""
        trains = self.settings.epochs > 0 and self.teaching is not None
        return trains and self.origin is not None and not self._head.hidden

    @property
    def _head(self) -> Projector:
        """The layers that lead to the teacher's embeddings."""
        lesson = self.method.second_lesson
        return self.method.query.projector if lesson is None else lesson.head

    def begin_head(self) -> None:
        """Fit the teacher's head to the initial features."""
        method = self.method
        features: list[torch.Tensor] = []
        taught: list[torch.Tensor] = []
        grid = None if self.teaching is None else self.teaching.cache.grid
        wanted_images = min(FITTED, FITTED_PLACES // math.prod(grid or (1,)))
        few = range(max(2, -(-wanted_images // self.settings.batch_size)))
        for number, views in zip(few, self.loader.batches(0, 0), strict=False):
            images, embeddings = self._moved((views[0], views[-1]))
            for architecture in self._architectures(number):
                method.activate(architecture)
                with torch.no_grad(), self._passes.autocast(self.device):
                    seen, _ = method.query.encoded(images)
                own, wanted = paired(seen.float(), embeddings)
                features.append(own)
                taught.append(wanted)
        fit_head(self._head, features, taught)
        distributed.share_weights(method)

    def weights(self) -> SupernetWeights:
        """The current weights."""
        query = states_of(self.method.query)
        key = query if self.method.key is None else states_of(self.method.key)
        name, origin = self.settings.method, self.origin
        if origin is not None:
            origin = replace(origin, trained=origin.trained or self._steps_done > 0)
        return SupernetWeights(
            self.method.space, *query[:2], *key[:2], query[2], key[2], name, origin
        )

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then cosine decay to 0."""
        lr, warmup = self.settings.lr, self.settings.warmup_epochs * self.loader.steps_per_epoch
        if step < warmup:
            return lr * (step + 1) / warmup
        done = (step - warmup) / max(1, self._total_steps - warmup)
        return lr * 0.5 * (1 + math.cos(math.pi * done))

    @property
    def _steps_done(self) -> int:
        return self.progress.epoch * self.loader.steps_per_epoch + self.progress.step

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
        except torch.cuda.OutOfMemoryError as error:
            raise no_memory_for_views(str(error)) from error
        except (RuntimeError, WorkersError) as error:
            workers = self.settings.workers
            failed = error if isinstance(error, WorkersError) else dead_worker(error, workers)
            if failed is None:
                raise
            if whole:
                self._save_state()
            raise failed from error
        self._finish_epoch(timer)
        done, epochs, stop = self.progress.epoch, self.settings.epochs, self._heard(signals)
        if stop and done < epochs:
            raise Interrupted(f"pre-training stopped by {stop.name} after epoch {done} of {epochs}")

    def _train_step(self, views: Views, step: int) -> StepResult:
        settings, passes = self.settings, self._passes
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        passes.step = step
        architectures = self._architectures(step)
        if self.progress.epoch < settings.largest_only_epochs:
            architectures = architectures[:1]
        moved = self._moved(views)
        share = step / self._total_steps
        try:
            result = self._step(
                self.method, moved, architectures, self.optimizer, share, passes=passes
            )
        except torch.cuda.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)
            found, result = str(error), None
        if result is None:  # outside of `except`, whose error holds memory
            memory = CudaMemory(self.device)
            raise out_of_memory(self.method, moved, passes, memory, found)
        if not result.finite:
            raise TrainingError(
                "finite losses",
                f"{result.losses} at step {step} (epoch {self.progress.epoch + 1})",
                UNSTABLE,
            )
        return result

    def _moved(self, views: Views) -> Views:
        return tuple(
            view.to(
                self.device,
                non_blocking=True,
                memory_format=self._memory_format if view.ndim == 4 else torch.preserve_format,
            )
            for view in views
        )

    def _architectures(self, step: int) -> list[Architecture]:
        return sandwich_architectures(
            self.method.space, self.settings.random_subnets, self.seed, step
        )

    def _after_step(self, result: StepResult, timer: EpochTimer, signals: StopSignals) -> None:
        """Watch the loss, report, and save the state within an epoch when due."""
        progress, settings, steps = self.progress, self.settings, self.loader.steps_per_epoch
        where = f"step {self._steps_done - 1} (epoch {progress.epoch + 1})"
        is_last = self._steps_done == self._total_steps
        self._watch.add(result.losses[0], where, chance=self._chance, last=is_last)
        pace_s = (time.monotonic() - self._begun) / (self._steps_done - self._steps_before)
        self.listener.step(
            StepReport(
                epoch=progress.epoch + 1,
                epochs=settings.epochs,
                step=progress.step,
                steps=steps,
                loss=progress.loss_largest,
                images_per_s=timer.images_per_s,
                remaining_s=pace_s * (self._total_steps - self._steps_done),
                spread=result.spread,
                collapsed=progress.collapsed(steps),
            )
        )
        if progress.step == steps:
            return
        if stop := self._heard(signals):
            self._save_state()
            distributed.wait_for_first()
            place = f"epoch {progress.epoch + 1} of {settings.epochs}"
            raise Interrupted(f"pre-training stopped by {stop.name} in {place}")
        if time.monotonic() - self._saved >= 60 * settings.checkpoint_minutes:
            self._save_state()

    def _heard(self, signals: StopSignals) -> signal.Signals | None:
        """The signal that any process has received; also collects their replaced images."""
        own = self.progress.replaced
        numbers, replaced = zip(
            *distributed.numbers_of_all(signals.received or 0, own), strict=True
        )
        self._replaced_by_others = sum(replaced) - own
        return signal.Signals(max(numbers)) if max(numbers) else None

    def _finish_epoch(self, timer: EpochTimer) -> None:
        """Write metrics, then weights, then state: a kill between them repeats the epoch."""
        self._check_weights()
        replaced = sum(count for (count,) in distributed.numbers_of_all(self.progress.replaced))
        self._replaced_by_others = 0
        if self._first:
            self._keep_epoch(timer, replaced)
        else:
            self.progress = self.progress.next_epoch()
        distributed.wait_for_first()

    def _keep_epoch(self, timer: EpochTimer, replaced: int) -> None:
        epoch, settings, good = self.progress.epoch + 1, self.settings, self._watch.usual
        every = settings.knn_every_epochs
        due = every > 0 and (epoch == settings.epochs or epoch % every == 0)
        weights = self.weights()
        monitor = self.monitor(weights) if self.monitor and due and good else {}
        report = self.progress.report(
            epochs=settings.epochs,
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
            self.listener.notice(
                f"the loss is high as epoch {epoch} ends: weights and state are not kept"
            )
        if report.best_epoch == epoch:
            weights.save(self.folder / BEST)
        self._save_state()
        self.listener.epoch(report)

    def _check_weights(self) -> None:
        """Refuse to overwrite a good state with infinite weights."""
        for name, tensor in self.method.state_dict().items():
            if not tensor.isfinite().all():
                raise TrainingError(
                    "finite weights",
                    f"non-finite values in {name} after step {self._steps_done - 1}",
                    UNSTABLE,
                )

    def _save_state(self) -> None:
        """Save the state, unless the loss may be exploding."""
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
                "accumulation": self.settings.accumulation,
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )
        self._saved = time.monotonic()

    def _resume(self) -> None:
        state = None
        if self._first and has_state(self.state_path):
            state = load_state(self.state_path, self.identity, self.listener.notice)
        state = distributed.of_first(state)
        if state is None:
            return
        self.method.load_state_dict(state["method"])
        load_optimizer(self.optimizer, state["optimizer"])
        self._watch = LossWatch(**state["watch"])
        self.progress = Progress(**state["progress"])
        if self._first:
            self._compare_with(state)
        else:
            self.progress.replaced = 0  # counted by the first process

    def _compare_with(self, state: dict[str, Any]) -> None:
        """Report changes since the state was saved that change results."""
        now, groups = self.settings.accumulation, self.settings.bn_group_size
        rounding = "differ by rounding alone only where pretrain.bn_group_size is set"
        digits = "will differ in their last digits (pretrain.threads)"
        changes = (
            ("processes", "{} processes", distributed.world_size(), rounding, True),
            ("accumulation", "pretrain.accumulation {}", now, rounding, groups is None),
            ("threads", "{} threads", torch.get_num_threads(), digits, True),
        )
        for field, text, now, effect, matters in changes:
            if matters and state[field] != now:
                self.listener.notice(
                    f"this run was begun with {text.format(state[field])} and continues with "
                    f"{now}: its results {effect}"
                )
