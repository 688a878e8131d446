"""Stage pretrain: trains the supernet."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from devices.files import sha256_of
from edgesearch.errors import CheckpointError, Interrupted
from edgesearch.events import silent
from edgesearch.pretrain.make_trainer import make_trainer, warn_of_images, weights_file
from edgesearch.pretrain.trainer import Trainer
from edgesearch.processes import distributed
from edgesearch.processes.shared_work import check_same_in_all
from edgesearch.run.context import IMAGES, RunContext
from edgesearch.run.stage import Stage


@dataclass(frozen=True)
class PretrainResult:
    """Result of `pretrain`."""

    weights_path: Path
    skipped: bool


def pretrain(run: RunContext) -> PretrainResult:
    """Train the supernet on unlabeled images; writes `supernet/`.

    Resumes where it was stopped; does nothing if finished. Under `torchrun` the processes train
    together; only the first writes and reports.
    """
    settings, seed, folder = run.config.pretrain, run.config.seed, run.files.supernet
    with distributed.processes(notice=run.teller("pretrain")):
        first = distributed.rank() == 0
        report = run.report if first else silent
        with run.writing() if first else nullcontext():
            pool = run.open_images(decode_all=settings.augmentation.batched)
            check_same_in_all({IMAGES: pool.digest})
            inputs = {IMAGES: pool.digest, **_digest_of_init(run)}
            stage = Stage("pretrain", folder, run.decisive("pretrain"), inputs)
            trainers: list[Trainer] = []

            def prepare() -> Trainer:
                identity = stage.plain_settings()
                return make_trainer(settings, seed, run.space, pool, folder, identity, report)

            def work(trainer: Trainer) -> list[str]:
                warn_of_images(trainer.method, pool, run.config.data, report)
                trainers.append(trainer)
                _fit(trainer)
                return [run.files.weights.name]

            skipped = stage.do(run, prepare, work)
            for trainer in trainers:
                if trainer.stopped_by is not None:
                    stop = trainer.stopped_by.name
                    raise Interrupted(f"stopped by {stop} when pre-training had just finished")
    return PretrainResult(run.files.weights, skipped)


def _fit(trainer: Trainer) -> None:
    try:
        trainer.fit()
    except Interrupted as error:
        path = trainer.state_path
        state = f"its last good state is in {path}" if path.exists() else "it has no state yet"
        raise Interrupted(f"{error}; {state}") from None


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
    return {f"pretrain.init {path}": sha256_of(path)}
