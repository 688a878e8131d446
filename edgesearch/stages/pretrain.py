"""Stage pretrain: trains the supernet."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from devices.files import sha256_of, write_bytes
from devices.machine import instruction_sets
from devices.values import in_shell
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import CheckpointError, Interrupted, StageError
from edgesearch.events import Event, Report, silent
from edgesearch.pretrain.computation import Choice, choose_computation
from edgesearch.pretrain.make_trainer import make_trainer, warn_of_images, weights_file
from edgesearch.pretrain.trainer import BEST, STATE, WEIGHTS, Trainer
from edgesearch.processes import distributed
from edgesearch.processes.shared_work import check_same_in_all
from edgesearch.run.context import IMAGES, RunContext
from edgesearch.run.room import check_disk, check_training_memory
from edgesearch.run.stage import Former, Stage, read_record
from edgesearch.supernet.weight_files import beginning_of
from edgesearch.training.checkpoint import find_state, has_state, load_state, save_state
from edgesearch.training.run_log import METRICS
from edgesearch.training.torch_device import torch_device

_EXTENSION = ("pretrain.epochs", "pretrain.extend", "pretrain.warmup_epochs")
_GOES_ON = "going on from a finished training"
_EXTEND = " For more epochs of the same training, set pretrain.extend=true."


@dataclass(frozen=True)
class PretrainResult:
    """Result of `pretrain`."""

    weights_path: Path
    skipped: bool


class Prepared(NamedTuple):
    """A trainer, and the finished training that it goes on from, if any."""

    trainer: Trainer
    shorter: Former | None


def pretrain(run: RunContext, *, anew: bool = False) -> PretrainResult:
    """Train the supernet on unlabeled images; writes `supernet/`.

    Resumes where it was stopped; does nothing if finished. Under `torchrun` the processes train
    together; only the first writes and reports.

    Args:
        run: The run.
        anew: Set aside a supernet of other settings or images even if its training was long.

    Raises:
        StageError: Without `anew`, there is such a supernet.
    """
    with distributed.processes(notice=run.teller("pretrain")):
        first = distributed.rank() == 0
        report = run.report if first else silent
        with run.writing() if first else nullcontext():
            pool = run.open_images(decode_all=run.config.pretrain.augmentation.batched)
            check_same_in_all({IMAGES: pool.digest})
            stage = pretrain_stage(run, pool)
            trainers: list[Trainer] = []

            def work(prepared: Prepared) -> list[str]:
                trainer, shorter = prepared
                trains = run.config.pretrain.epochs > 0
                warn_of_images(trainer.method, pool, run.config.data, report, trains)
                trainers.append(trainer)
                if shorter is not None:
                    _copy_finished(stage, shorter, trainer)
                _fit(trainer)
                return [run.files.weights.name]

            prepare = partial(prepare_training, run, stage, pool, report)
            skipped = stage.do(run, prepare, work, anew=anew)
            for trainer in trainers:
                if trainer.stopped_by is not None:
                    stop = trainer.stopped_by.name
                    raise Interrupted(f"stopped by {stop} when pre-training had just finished")
    return PretrainResult(run.files.weights, skipped)


def check_pretrain(run: RunContext, anew: bool) -> None:
    """Check before the first stage whether the training can run.

    Raises:
        UserError: It cannot.
    """
    pool = run.open_images(decode_all=run.config.pretrain.augmentation.batched)
    stage = pretrain_stage(run, pool)
    if not stage.is_finished() and not stage.can_take_back():
        stage.check_loss(anew)
        prepare_training(run, stage, pool, silent, early=True)


def pretrain_stage(run: RunContext, pool: ImagePool) -> Stage:
    """The stage with everything that the supernet depends on."""
    inputs = {IMAGES: pool.digest, **digest_of_init(run), **digests_of_teacher(run)}
    settings, folder = run.decisive("pretrain"), run.files.supernet
    if run.config.pretrain.extend:  # what is extended is used
        return Stage("pretrain", folder, settings, inputs, cheap=_EXTENSION, begins=_GOES_ON)
    return Stage("pretrain", folder, settings, inputs, instead=_EXTEND)


def prepare_training(
    run: RunContext, stage: Stage, pool: ImagePool, report: Report, early: bool = False
) -> Prepared:
    """Make all checks that can refuse the training, and the trainer; `early` ones time no steps."""
    settings, folder, first = run.config.pretrain, run.files.supernet, distributed.rank() == 0
    shorter = None
    if first:
        check_training_memory(run)
        if _extends(run, stage):
            shorter = _shorter(run, stage)
    if settings.epochs > 0 and not early:
        choice = distributed.of_first(_choice(run, stage, shorter) if first else None)
        assert choice is not None
        chosen = asdict(choice.computation)
        stage.settle({f"pretrain.{name}": value for name, value in chosen.items()})
        settings = settings.model_copy(update=chosen)
        if choice.words:
            report(Event("pretrain", choice.words))
    identity, seed = stage.plain_settings(), run.config.seed
    trainer = make_trainer(settings, seed, run.space, pool, folder, identity, report)
    if first:
        kind = {} if trainer.teaching is None else {"kind": trainer.teaching.cache.kind}
        check_disk(run, trainer.taught_bytes, **kind)
    return Prepared(trainer, shorter)


def _choice(run: RunContext, stage: Stage, shorter: Former | None) -> Choice:
    """The computation of the training that it goes on with, or that timed steps choose."""
    settings, kept = run.config.pretrain, {}
    record = shorter.record if shorter else read_record(stage.folder)
    if record is not None and stage.changes(record).keys() <= {*_EXTENSION}:
        settled = stage.settled(record)
        kept = {name.removeprefix("pretrain."): value for name, value in settled.items()}
    settings = settings.model_copy(update=kept)
    device, sets = torch_device(settings.device), instruction_sets(Path("/"))
    choice = choose_computation(settings, run.space, device, sets)
    if kept and choice.words:
        return replace(choice, words=f"{choice.words}; it goes on with what it began with")
    return choice


def _extends(run: RunContext, stage: Stage) -> bool:
    """Whether the training begins with the state of a shorter one."""
    record = read_record(stage.folder)
    begun = record is not None and not stage.changes(record) and has_state(stage.folder / STATE)
    return run.config.pretrain.extend and not begun


def _shorter(run: RunContext, stage: Stage) -> Former:
    """The finished training of fewer epochs that equals this one in all else.

    The one in the stage's folder if it is such a training, or the longest that was set aside.

    Raises:
        StageError: There is none.
    """
    epochs = run.config.pretrain.epochs
    found = [
        former
        for former in stage.former()
        if former.record["finished"]
        and stage.changes(former.record).keys() <= {*_EXTENSION}
        and former.record["settings"]["pretrain.epochs"] < epochs
        and has_state(former.folder / STATE)
    ]
    if not found:
        raise StageError(
            f"a finished training of fewer than {epochs} epochs for pretrain.extend, with the same "
            "images and otherwise the same settings",
            f"none in {stage.folder}, nor beside it",
            "Leave pretrain.extend out to train from the start.",
        )
    chosen = max(
        found,
        key=lambda former: (
            former.folder == stage.folder,
            int(former.record["settings"]["pretrain.epochs"]),
        ),
    )
    _check_state(chosen)
    return chosen


def _check_state(shorter: Former) -> None:
    """Refuse a finished training whose states are damaged, before it is set aside.

    Raises:
        CheckpointError: There is no state to go on from.
    """
    path, weights = shorter.folder / STATE, shorter.folder / WEIGHTS
    try:
        find_state(path)
    except CheckpointError as error:
        remedy = (
            "Restore one of them from a copy. Without, train from the start (set "
            "pretrain.extend=false and add --anew; the former output is kept)"
        )
        if weights.exists():
            init = in_shell(f"pretrain.init={weights}")
            remedy += f", or from its weights: output_dir=ANOTHER {init} pretrain.extend=false"
        raise CheckpointError(
            f"a training state for pretrain.extend at {path}, or the one before it",
            error.found,
            f"{remedy}.",
        ) from error


def _copy_finished(stage: Stage, shorter: Former, trainer: Trainer) -> None:
    """Let a trainer continue a finished training, which may have been set aside meanwhile.

    A kill in between repeats this.
    """
    shorter = next(each for each in stage.former() if each.record == shorter.record)
    path, notice = shorter.folder / STATE, trainer.listener.notice
    state = load_state(path, shorter.record["settings"], notice)
    for name in (METRICS, BEST):
        if (shorter.folder / name).exists():
            write_bytes(trainer.folder / name, (shorter.folder / name).read_bytes())
    save_state(trainer.state_path, {**state, "identity": trainer.identity})
    epochs = shorter.record["settings"]["pretrain.epochs"]
    trainer.listener.notice(f"continues the {epochs} epochs of {shorter.folder} (pretrain.extend)")


def _fit(trainer: Trainer) -> None:
    try:
        trainer.fit()
    except Interrupted as error:
        path = trainer.state_path
        state = f"its last good state is in {path}" if path.exists() else "it has no state yet"
        raise Interrupted(f"{error}; {state}") from None


def digests_of_teacher(run: RunContext) -> dict[str, str]:
    """SHA-256 of the teacher's files, by display name."""
    teacher = run.config.pretrain.teacher
    if teacher is None:
        return {}
    files = {"onnx": teacher.onnx, "torchscript": teacher.torchscript, "weights": teacher.weights}
    found = {}
    for name, path in files.items():
        if path is None:
            continue
        if not path.is_file():
            raise CheckpointError(
                f"a file of the teacher at {path}",
                "no such file",
                f"Correct pretrain.teacher.{name}.",
            )
        found[f"pretrain.teacher.{name} {path}"] = sha256_of(path)
    return found


def digest_of_init(run: RunContext) -> dict[str, str]:
    """SHA-256 of the initial weights, by display name; empty without `pretrain.init`."""
    init = run.config.pretrain.init
    if init is None:
        return {}
    path = weights_file(init)
    if path.resolve() == run.files.weights.resolve():
        raise CheckpointError(
            "weights of another run for pretrain.init",
            f"{path}, which this run writes",
            "Choose another output_dir for this run.",
        )
    beginning_of(path)
    return {f"pretrain.init {init}": sha256_of(path)}
