"""Stage pretrain: trains the supernet."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from devices.files import sha256_of, write_bytes
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import CheckpointError, Interrupted, StageError
from edgesearch.events import Report, silent
from edgesearch.pretrain.make_trainer import make_trainer, warn_of_images, weights_file
from edgesearch.pretrain.trainer import BEST, STATE, Trainer
from edgesearch.processes import distributed
from edgesearch.processes.shared_work import check_same_in_all
from edgesearch.run.context import IMAGES, RunContext
from edgesearch.run.room import check_disk, check_training_memory
from edgesearch.run.stage import Former, Stage, read_record
from edgesearch.training.checkpoint import has_state, load_state, save_state
from edgesearch.training.run_log import METRICS

_EXTENSION = ("pretrain.epochs", "pretrain.extend", "pretrain.warmup_epochs")
_EXTEND = " For more epochs of the same training, set pretrain.extend=true."


@dataclass(frozen=True)
class PretrainResult:
    """Result of `pretrain`."""

    weights_path: Path
    skipped: bool


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

            def work(trainer: Trainer) -> list[str]:
                trains = run.config.pretrain.epochs > 0
                warn_of_images(trainer.method, pool, run.config.data, report, trains)
                trainers.append(trainer)
                if first and _extends(run, stage):
                    _copy_finished(_shorter(run, stage), trainer)
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
        prepare_training(run, stage, pool, silent)


def pretrain_stage(run: RunContext, pool: ImagePool) -> Stage:
    """The stage with everything that the supernet depends on."""
    inputs = {IMAGES: pool.digest, **_digest_of_init(run), **_digests_of_teacher(run)}
    settings, folder = run.decisive("pretrain"), run.files.supernet
    if run.config.pretrain.extend:  # what is extended is used
        return Stage("pretrain", folder, settings, inputs, cheap=_EXTENSION)
    return Stage("pretrain", folder, settings, inputs, instead=_EXTEND)


def prepare_training(run: RunContext, stage: Stage, pool: ImagePool, report: Report) -> Trainer:
    """The trainer, once everything that can refuse the training has been checked."""
    settings, folder = run.config.pretrain, run.files.supernet
    if distributed.rank() == 0:
        check_training_memory(run)
        check_disk(run)
        if _extends(run, stage):
            _shorter(run, stage)
    identity = stage.plain_settings()
    return make_trainer(settings, run.config.seed, run.space, pool, folder, identity, report)


def _extends(run: RunContext, stage: Stage) -> bool:
    """Whether the training begins with the state of a shorter one."""
    record = read_record(stage.folder)
    begun = record is not None and not stage.changes(record) and has_state(stage.folder / STATE)
    return run.config.pretrain.extend and not begun


def _shorter(run: RunContext, stage: Stage) -> Former:
    """The longest finished training of fewer epochs that equals this one in all else.

    Raises:
        StageError: There is none.
    """

    def fixed(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name not in _EXTENSION}

    epochs, wanted = run.config.pretrain.epochs, stage.plain_settings()
    found = [
        former
        for former in stage.former()
        if former.record["finished"]
        and former.record["inputs"] == stage.inputs
        and fixed(former.record["settings"]) == fixed(wanted)
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
    return max(found, key=lambda former: int(former.record["settings"]["pretrain.epochs"]))


def _copy_finished(shorter: Former, trainer: Trainer) -> None:
    """Let a trainer continue a finished training; a kill in between repeats this."""
    state = load_state(shorter.folder / STATE, shorter.record["settings"])
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


def _digests_of_teacher(run: RunContext) -> dict[str, str]:
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


def _digest_of_init(run: RunContext) -> dict[str, str]:
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
    if not path.is_file():
        raise CheckpointError(
            f"initial weights at {path}", "no such file", "Correct pretrain.init."
        )
    return {f"pretrain.init {init}": sha256_of(path)}
