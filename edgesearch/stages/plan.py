"""Command plan: what a run would do, and how long it takes on this machine."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from devices.files import refuse_no_folder
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import UserError
from edgesearch.events import silent
from edgesearch.export.exportable import buildable
from edgesearch.latency.glance import Glance, glance_at
from edgesearch.latency.latency_model import LatencyModel, about_latencies
from edgesearch.latency.table import NETWORK, WITH_HEAD, current_correction, current_head
from edgesearch.latency.workloads import ANCHORS, block_keys
from edgesearch.pretrain.knn_monitor import CALIBRATION_IMAGES
from edgesearch.pretrain.trainer import STATE, Trainer
from edgesearch.run.context import IMAGES, WEIGHTS, RunContext
from edgesearch.run.room import check_memory, disk_free, disk_needed, machine_memory
from edgesearch.run.stage import Stage, read_record
from edgesearch.search.agreement import images_of_score, make_agreement
from edgesearch.search.training_doubt import LABELLED
from edgesearch.space import Architecture
from edgesearch.stages.export import (
    check_export,
    export_stage,
    target_of,
    time_export,
)
from edgesearch.stages.finetune import check_finetune, finetune_stage, open_finetuning
from edgesearch.stages.pretrain import check_pretrain, prepare_training, pretrain_stage
from edgesearch.stages.profile import is_fitted, is_profiled, missing_keys, table_of
from edgesearch.stages.scorer import inputs_of_score
from edgesearch.stages.search import check_search, search_stage, tables_of
from edgesearch.stages.summary import summary_stage
from edgesearch.stages.within_budget import measure_winner
from edgesearch.supernet.weights import SupernetWeights
from edgesearch.training.allocator import memory_kept
from edgesearch.training.checkpoint import has_state
from edgesearch.training.run_log import epochs_done
from edgesearch.words import counted, duration_words, ms_words
from profilers import LatencyTable

FINISHED, BEGUN, TO_DO = "finished", "begun", "to do"
STEPS_S, BRIEF_S = 45.0, 1.5
"""Longest time for training steps, in `plan` and at the beginning of `run`."""
STEPS = 12
"""Steps after which what was prepared ahead is used up."""
TUNING_STEPS, TUNING_STEPS_S = 4, 10.0
"""Steps of fine-tuning in each end of the space, and the longest time for them."""
REPEATS = 3
"""How often a candidate is scored; the fastest counts, since other programs disturb."""
LIGHT_MACS = 5e9
"""Multiply-accumulates of a batch in the largest network that any machine computes in a moment."""
USUAL_ROUNDS = 1.2
"""Rounds of a block or network relative to those that it needs: some are disturbed."""


@dataclass(frozen=True)
class StagePlan:
    """What is left of a stage.

    Attributes:
        state: "finished", "begun" or "to do".
        work: What would be done, in words.
        seconds: How long it takes; None if it is not known.
    """

    name: str
    state: str
    work: str
    seconds: float | None


@dataclass(frozen=True)
class PlanResult:
    """Result of `plan`.

    Attributes:
        seconds: Time of all stages whose time is known.
        memory_bytes: Most memory that this process needed while it trained and scored; None if
            there is nothing to train.
        machine_bytes: Memory of the machine.
        disk_bytes: What the training keeps on the disk.
        free_bytes: What is free there.
        table_bytes: Size of the latency table, when it is complete.
        latency_ms: Median latency of the smallest and of the largest network; None if unknown.
        latency_of: What it is of: "backbone", or "whole model" with its head.
        latency_from: How it is known, or why not.
        budgets: The budgets in words.
        verdict: How the budgets lie to the range of latencies.
        feasible: Whether an architecture is within the budgets, as far as it is known.
    """

    stages: tuple[StagePlan, ...]
    seconds: float
    memory_bytes: int | None
    machine_bytes: int
    disk_bytes: int
    free_bytes: int
    table_path: Path
    table_bytes: int | None
    latency_ms: tuple[float, float] | None
    latency_of: str
    latency_from: str
    budgets: tuple[str, ...]
    verdict: str
    feasible: bool


def plan(run: RunContext, *, anew: bool = False) -> PlanResult:
    """Say what a run would do, and how long; some real steps, blocks and candidates are timed.

    Nothing is written but blocks into the cache, where `profile` finds them.

    Args:
        run: The run.
        anew: Plan as if output of other settings or inputs were set aside.

    Raises:
        UserError: The run would be refused; the error is that of the stage.
    """
    with run.one_pool():
        check_run(run, anew)
        return Planner(run).plan()


def check_run(run: RunContext, anew: bool) -> None:
    """Check before the first stage what can refuse any of them, as far as it is known.

    Raises:
        UserError: A stage would be refused.
    """
    refuse_no_folder(run.files.output_dir)
    check_memory(run)
    check_search(run, profiled=False)
    check_finetune(run)
    check_export(run)
    check_pretrain(run, anew)


def tell_plan(run: RunContext) -> None:
    """Report the plan in short, with times where finding them out takes a second or two."""
    planner = Planner(run, most_s=BRIEF_S, brief=True)
    left = [stage for stage in planner.stages() if stage.state != FINISHED]
    tell = run.teller("plan")
    for stage in left:
        tell(f"{stage.name}: {stage.work}{_about(stage.seconds)}")
    doubt = planner.out_of_reach()
    if doubt:
        tell(f"warning: {doubt}")


def _about(seconds: float | None) -> str:
    return "" if seconds is None else f"; about {duration_words(seconds)}"


def _fault(stage: Stage | None) -> str:
    """Why a finished stage is to be done again; empty if it is not, or if something has changed."""
    fault = "" if stage is None else stage.fault()
    return f" ({fault})" if fault else ""


def peak_memory() -> int | None:
    """Most memory that this process has had, in bytes; None if the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Planner:
    """Finds out what is left of a run, and times a little of it.

    Args:
        run: The run, whose checks have passed.
        most_s: Longest time to spend on training steps, of which two are made in any case.
        brief: Measure nothing on the device, and time no heavy networks here.
    """

    def __init__(self, run: RunContext, most_s: float = STEPS_S, brief: bool = False) -> None:
        self.run, self.config, self.space = run, run.config, run.space
        self.most_s, self.brief = most_s, brief
        self._why_no_glance = "not measured"

    def plan(self) -> PlanResult:
        """The whole plan."""
        stages = tuple(self.stages())
        if any(stage.state != FINISHED for stage in stages):
            self._tell_unreadable()
        latency_ms, latency_from = self._latency_range()
        budgets, verdict, feasible = self._budgets(latency_ms)
        path = self.run.files.table(self.run.device)
        trains = any(stage.name == "pretrain" and stage.state != FINISHED for stage in stages)
        return PlanResult(
            stages=stages,
            seconds=sum(stage.seconds or 0.0 for stage in stages),
            memory_bytes=peak_memory() if trains else None,
            machine_bytes=machine_memory(),
            disk_bytes=self._disk_bytes() if trains else 0,
            free_bytes=disk_free(self.run),
            table_path=path,
            table_bytes=self._table_bytes(path),
            latency_ms=latency_ms,
            latency_of=about_latencies(self.run.head),
            latency_from=latency_from,
            budgets=budgets,
            verdict=verdict,
            feasible=feasible,
        )

    def _disk_bytes(self) -> int:
        return max(0, disk_needed(self.run) + self._trainer.taught_bytes)

    def _tell_unreadable(self) -> None:
        """Describe the images again if some of those counted before cannot be read."""
        _ = self._pool.train, self._pool.test  # decoded on first use
        if self._pool.unreadable:
            self.run.teller("images")(str(self._pool.contents))

    def stages(self) -> Iterator[StagePlan]:
        """The stages in their order; those after one that is not finished are to be done."""
        tuned = (self._finetune,) if self.config.finetune.task is not None else ()
        after = (*tuned, self._export, self._summary)
        follows = True
        for of_stage in (self._profile, self._pretrain, self._search, *after):
            stage = of_stage(follows)
            follows = follows and stage.state == FINISHED
            yield stage

    # Facts, each found out once.

    @cached_property
    def _pool(self) -> ImagePool:
        return self.run.open_images(decode_all=self.config.pretrain.augmentation.batched)

    @cached_property
    def _table(self) -> LatencyTable | None:
        return table_of(self.run)

    @cached_property
    def _glance(self) -> Glance | None:
        """Both ends of the space, measured; None if that is not wanted or not possible."""
        if self.brief:
            return None
        try:
            return self._glance_at([self.space.smallest, self.space.largest])
        except UserError as error:
            self._why_no_glance = f"not measured: {error}"
            return None

    def _glance_at(self, architectures: list[Architecture]) -> Glance:
        return glance_at(
            self.space,
            self.run.device,
            architectures,
            runs=self.config.profile.runs,
            cache_dir=self.config.profile.cache_dir,
            report=self.run.report,
            head=self.run.head,
        )

    @cached_property
    def _trainer(self) -> Trainer:
        stage = pretrain_stage(self.run, self._pool)
        return prepare_training(self.run, stage, self._pool, silent, early=self.brief).trainer

    @cached_property
    def _weights(self) -> SupernetWeights:
        """The supernet, trained or not: the time to score does not depend on it."""
        if self.run.files.weights.exists():
            with suppress(UserError):
                return self.run.load_weights()
        return self._trainer.weights()

    @cached_property
    @memory_kept()
    def _image_s(self) -> dict[Architecture, float]:
        """Time that an image takes in each end of the space, scored as in the search."""
        search = self.config.search
        few = min(search.batch_size, len(self._pool.train))
        settings = search.model_copy(update={"images": few, "calibration_images": few})
        self.run.set_threads()
        agreement = make_agreement(self._weights, self._pool, settings)
        found = {}
        for architecture in (self.space.smallest, self.space.largest):
            agreement.subnet(architecture)  # decodes the images of its resolution
            times = []
            for _ in range(REPEATS):
                begun = time.monotonic()
                agreement.scores(architecture, few)
                times.append(time.monotonic() - begun)
            found[architecture] = min(times) / few
        return found

    @cached_property
    def _times(self) -> bool:
        """Whether steps and candidates are timed: in brief only where they take a second or two."""
        images = max(self.config.pretrain.batch_size, self.config.search.batch_size)
        return not self.brief or images * self.space.macs(self.space.largest) < LIGHT_MACS

    # Stages.

    def _profile(self, follows: bool) -> StagePlan:
        settings, table = self.config.profile, self._table
        if is_profiled(self.run, table):
            measured = f"{len(block_keys(self.space))} blocks"
            if is_fitted(self.run, table):
                return StagePlan("profile", FINISHED, measured, None)
            return StagePlan("profile", BEGUN, f"fit predictions to {measured} and networks", 0.0)
        missing = [*block_keys(self.space)] if table is None else missing_keys(self.run, table)
        networks = [key for key in missing if key.startswith((f"{NETWORK}/", f"{WITH_HEAD}/"))]
        blocks = len(missing) - len(networks)
        count = len(networks)
        if table is None:
            count = settings.networks * (1 if self.run.head is None else 2)
        most = f"at most {duration_words(settings.max_seconds)} of measuring"
        work = f"measure {blocks:,} blocks and {count} networks on {self.run.device.name}, {most}"
        state = TO_DO if table is None else BEGUN
        if self._glance is None:
            return StagePlan("profile", state, work, None)
        measure = settings.measure(self.config.seed)
        of_blocks, of_networks = self._glance.blocks, self._glance.networks
        usual_s = USUAL_ROUNDS * (
            blocks * of_blocks.measuring_s(measure) + count * of_networks.measuring_s(measure)
        )
        round_s = blocks * of_blocks.round_s() + count * of_networks.round_s()
        rounds_s = max(min(usual_s, measure.max_seconds), measure.minimum_rounds * round_s)
        exports_s = self._glance.exports_left * (self._glance.export_s or 0.0)
        seconds = exports_s + (blocks + count) * self._glance.load_s + rounds_s
        return StagePlan("profile", state, work, seconds)

    def _pretrain(self, follows: bool) -> StagePlan:
        settings = self.config.pretrain
        stage = pretrain_stage(self.run, self._pool)
        if stage.is_finished() or stage.can_take_back():
            work = counted(settings.epochs, "epoch") if settings.epochs else "initial weights"
            return StagePlan("pretrain", FINISHED, work, None)
        if settings.epochs == 0:
            return StagePlan("pretrain", TO_DO, "take over the initial weights", 0.0)
        steps = self._trainer.loader.steps_per_epoch
        record, done = read_record(stage.folder), 0
        if record is not None and not stage.changes(record) and has_state(stage.folder / STATE):
            done = min(settings.epochs, epochs_done(stage.folder))
        left = settings.epochs - done
        work = f"{counted(left, 'epoch')} of {steps:,} steps with {settings.batch_size} images" + (
            f" ({counted(done, 'epoch')} done)" if done else ""
        )
        work += _fault(stage)
        state = BEGUN if done else TO_DO
        if not self._times:
            return StagePlan("pretrain", state, work, None)
        teaching = self._trainer.teaching
        teacher_s = 0.0 if teaching is None else teaching.seconds_left()
        monitored = 0
        if self._trainer.monitor is not None and settings.knn_every_epochs:
            monitored = math.ceil(left / settings.knn_every_epochs)
        monitor_s = monitored * self._knn_s(CALIBRATION_IMAGES, [*self._image_s])
        step = self._trainer.time_steps(STEPS, self.most_s)
        seconds = teacher_s + left * (step.start_s + steps * step.step_s) + monitor_s
        return StagePlan("pretrain", state, work, seconds)

    def _search(self, follows: bool) -> StagePlan:
        settings = self.config.search
        stage = self._search_stage()
        if follows and stage is not None and stage.is_finished():
            return StagePlan("search", FINISHED, f"{settings.evaluations} candidates", None)
        count = min(settings.evaluations, self.space.size)
        known = 0
        with suppress(OSError):
            known = min(count, sum(1 for _ in self.run.files.search.trials.open("rb")) - 1)
        known = max(0, known) if follows else 0
        images = images_of_score(len(self._pool.train), settings, silent)[1]
        compared = min(count, settings.winners + settings.reserves)
        work = f"score {count - known} candidates on at most {images:,} images"
        work += _fault(stage)
        state = BEGUN if known else TO_DO
        if not self._times:
            return StagePlan("search", state, work, None)
        calibration = min(settings.calibration_images, len(self._pool.train))
        passes = (count - known) * (calibration + images) + compared * images
        seconds = passes * self._mean_image_s
        if self._pool.has_labels:
            seconds += 2 * self._knn_s(settings.calibration_images, [self.space.largest], LABELLED)
        return StagePlan("search", state, work, seconds)

    def _search_stage(self) -> Stage | None:
        """The stage; None while something that it reads is missing."""
        with suppress(UserError):
            tables = tables_of(self.run)
            inputs = {
                WEIGHTS: self.run.weights_digest(),
                IMAGES: self._pool.digest,
                **inputs_of_score(self.run),
            }
            return search_stage(self.run, tables, inputs)
        return None

    def _finetune(self, follows: bool) -> StagePlan:
        """Fine-tuning; the winners' steps take as long as the mean of both ends of the space."""
        settings = self.config.finetune
        epochs = counted(settings.epochs, "epoch")
        work = f"train {', '.join(settings.start)} for {settings.task}, {epochs}"
        with suppress(UserError, OSError):
            stage = finetune_stage(self.run, self._pool)
            if follows and stage.is_finished():
                return StagePlan("finetune", FINISHED, work, None)
            work += _fault(stage)
        return StagePlan("finetune", TO_DO, work, None if self.brief else self._finetune_s())

    def _finetune_s(self) -> float:
        """Time of all trainings, from some steps of both ends of the space."""
        settings, ends = self.config.finetune, (self.space.smallest, self.space.largest)
        finetuning = open_finetuning(self.run, self._pool, weights=False)
        self.run.set_threads("finetune")
        images = finetuning.images
        judged = len(images.test) + settings.epochs * len(images.validation or ())
        of_end = {}
        for end in ends:
            steps, step_s = finetuning.time_steps(
                finetuning.subnet(end), TUNING_STEPS, TUNING_STEPS_S
            )
            of_end[end] = settings.epochs * steps * step_s + judged * self._image_s[end]
        winners = self.config.search.winners * len(self.config.search.budgets.each())
        mean_s = sum(of_end.values()) / len(of_end)
        known = {
            "winners": winners * (mean_s + self._measuring_s()),
            "smallest": of_end[ends[0]],
            "largest": of_end[ends[1]],
        }
        teacher_s = of_end[ends[1]] if settings.distill and "largest" not in settings.start else 0.0
        return teacher_s + sum(known.get(each, mean_s) for each in settings.start)

    def _export(self, follows: bool) -> StagePlan:
        winners = self.config.search.winners * len(self.config.search.budgets.each())
        work = f"build, check and measure {winners} winner{'s' * (winners > 1)}"
        tensorrt = buildable(target_of(self.run), silent)
        if tensorrt is not None:
            work += f", with engines for {', '.join(tensorrt.compute_capabilities)}"
        with suppress(UserError, OSError):
            stage = export_stage(self.run, self._pool, tensorrt)
            if follows and stage.is_finished():
                return StagePlan("export", FINISHED, work, None)
            work += _fault(stage)
        if self.brief:
            return StagePlan("export", TO_DO, work, None)
        try:
            return StagePlan("export", TO_DO, work, winners * self._export_s())
        except UserError as error:
            return StagePlan("export", TO_DO, f"{work}; not timed: {error}", None)

    def _export_s(self) -> float:
        """Time to build and measure a winner, from one network."""
        tried = self.space.sample(random.Random(self.config.seed))
        return time_export(self.run, self._weights, self._pool, tried) + self._measuring_s()

    def _measuring_s(self) -> float:
        """Time to measure a winner; 0 if it is unknown."""
        if self._glance is None:
            return 0.0
        measure, of_networks = measure_winner(self.run), self._glance.networks
        anchors_s = ANCHORS * of_networks.rounds(measure) * of_networks.round_s()
        return of_networks.measuring_s(measure) + anchors_s

    def _summary(self, follows: bool) -> StagePlan:
        work = "compare the winners with both ends of the space and raw pixels"
        with suppress(UserError):
            stage = summary_stage(self.run, self._pool)
            if follows and stage.is_finished():
                return StagePlan("summary", FINISHED, work, None)
            work += _fault(stage)
        if not self._times:
            return StagePlan("summary", TO_DO, work, None)
        winners = self.config.search.winners * len(self.config.search.budgets.each())
        search = self.config.search
        images = sum(
            min(each, len(self._pool.train)) for each in (search.calibration_images, search.images)
        )
        seconds = (winners + 2) * images * self._mean_image_s
        if self._pool.has_labels:
            ends = [*self._image_s, self.space.largest]
            seconds += self._knn_s(search.calibration_images, ends)
            seconds += winners * self._knn_s(search.calibration_images, [*self._image_s]) / 2
        return StagePlan("summary", TO_DO, work, seconds)

    @property
    def _mean_image_s(self) -> float:
        return sum(self._image_s.values()) / len(self._image_s)

    def _knn_s(
        self, calibration: int, architectures: list[Architecture], most: int | None = None
    ) -> float:
        """Time of kNN accuracies: recalibration, and features of the labelled images."""
        settings, contents = self.config.evaluation, self._pool.contents
        train = min(contents.train, settings.train_images, most or contents.train)
        test = min(contents.test, settings.test_images, most or contents.test)
        calibration = min(calibration, len(self._pool.train))
        return (calibration + train + test) * sum(map(self._image_s.__getitem__, architectures))

    # Latency, budgets, disk.

    def _latency_range(self) -> tuple[tuple[float, float] | None, str]:
        table, ends = self._table, (self.space.smallest, self.space.largest)
        correction = None if table is None else current_correction(self.space, table)
        head, fit = self.run.head, None
        if table is not None and head is not None:
            fit = current_head(self.space, table, head)
        if table is not None and correction is not None and (head is None or fit is not None):
            model = LatencyModel.from_table(self.space, table, correction, head, fit)
            low, high = (model.predict(each).median_ms for each in ends)
            if math.isfinite(low) and math.isfinite(high):
                return (low, high), f"predicted from {table.path}"
        if self._glance is not None:
            found = [self._glance.latencies_ms.get(each) for each in ends]
            low_ms, high_ms = found
            if low_ms is None or high_ms is None:
                return None, "the device cannot run the smallest or the largest network"
            return (low_ms, high_ms), "measured just now"
        return None, self._why_no_glance

    def _budgets(self, latency_ms: tuple[float, float] | None) -> tuple[tuple[str, ...], str, bool]:
        """The budgets in words, how they lie, and whether they can be met."""
        budgets = self.config.search.budgets
        if latency_ms is None:
            shares = budgets.latency_of_largest or ()
            shares = shares if isinstance(shares, tuple) else (shares,)
            unknown = [f"latency ≤ {each:.3g} × the largest network's" for each in shares]
            return (*unknown, *budgets.words()), "", True
        smallest_ms, largest_ms = latency_ms
        budgets = budgets.with_largest(largest_ms)
        words, feasible = [], True
        for part in budgets.each():
            bound = part.ranges().get("latency_ms")
            if bound is None:
                continue
            _, most_ms = bound.ends
            if most_ms < smallest_ms:
                feasible = False
                words.append(
                    f"{ms_words(most_ms)} is out of reach: the smallest network takes "
                    f"{ms_words(smallest_ms)}; choose lower resolutions, another space or a higher "
                    "budget"
                )
            elif most_ms >= largest_ms:
                words.append(
                    f"{ms_words(most_ms)} binds nothing: even the largest network takes "
                    f"{ms_words(largest_ms)}; a larger resolution or space would use it"
                )
            else:
                words.append(f"{ms_words(most_ms)} lies within")
        return tuple(budgets.words()), "; ".join(words), feasible

    def out_of_reach(self) -> str:
        """Why a latency budget seems out of reach before anything is profiled; empty otherwise."""
        bounds = [part.ranges().get("latency_ms") for part in self.config.search.budgets.each()]
        most_ms = min((bound.ends[1] for bound in bounds if bound is not None), default=math.inf)
        if self._table is not None or not math.isfinite(most_ms):
            return ""
        with suppress(UserError):  # the stage says it
            smallest = self.space.smallest
            found = self._glance_at([smallest]).latencies_ms.get(smallest, 0.0)
            if most_ms < found:
                return (
                    f"{ms_words(most_ms)} seems out of reach: the smallest network takes "
                    f"{ms_words(found)}, measured just now; the table will tell for certain"
                )
        return ""

    def _table_bytes(self, path: Path) -> int | None:
        if is_profiled(self.run, self._table):
            return path.stat().st_size
        if self._glance is None:
            return None
        measure = self.config.profile.measure(self.config.seed)
        blocks, networks = len(block_keys(self.space)), self.config.profile.networks
        networks *= 1 if self.run.head is None else 2
        records = blocks * self._glance.blocks.rounds(measure)
        records += networks * self._glance.networks.rounds(measure)
        return round(USUAL_ROUNDS * records * self._glance.record_bytes)
