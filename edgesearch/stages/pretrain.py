"""Stage pretrain: from images and a space to a trained supernet."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from edgesearch.data.image_pool import ImagePool, ImageSource
from edgesearch.errors import CheckpointError, Interrupted
from edgesearch.events import Event, Report, silent, teller
from edgesearch.export.manifest import sha256_of
from edgesearch.pretrain.make_trainer import make_trainer, warn_of_images, weights_file
from edgesearch.pretrain.settings import PretrainSettings
from edgesearch.pretrain.trainer import Trainer
from edgesearch.processes import distributed
from edgesearch.processes.shared_work import check_same_in_all
from edgesearch.run.layout import Layout
from edgesearch.run.output_folder import output_folder
from edgesearch.run.stage import Stage, prefixed
from edgesearch.space import SearchSpace


@dataclass(frozen=True)
class PretrainResult:
    """What the stage left behind.

    Attributes:
        weights_path: The trained supernet.
        skipped_images: Images left out now because they could not be read.
        skipped: The stage had been finished before.
    """

    weights_path: Path
    skipped_images: int
    skipped: bool


def pretrain(
    *,
    space: SearchSpace,
    images: ImageSource,
    output_dir: Path,
    settings: PretrainSettings,
    seed: int = 0,
    report: Report = silent,
) -> PretrainResult:
    """Train the supernet of a space on images without labels.

    Goes on from where it was stopped; does nothing if it is finished. Under `torchrun` its
    processes train together, and the first of them alone writes and reports.

    Args:
        space: The search space.
        images: The images; labels serve the kNN monitor only.
        output_dir: Gets `supernet/`.
        settings: How to train.
        seed: Of all that is random.
        report: Is told what happens.

    Raises:
        Interrupted: Stopped by a signal; the same call goes on.
        ProcessFailed: Another process of the run has failed.
        UserError: Something about images, configuration or files has to be mended.
    """
    with distributed.processes(notice=teller("pretrain", report)):
        first = distributed.rank() == 0
        report = report if first else silent
        batched = settings.augmentation.batched
        pool = ImagePool(images, space.in_channels, seed, decode_all=batched)
        check_same_in_all({"the set of images": pool.digest})
        layout = Layout(output_dir)
        with output_folder(output_dir) if first else nullcontext():
            depends_on = {
                "space": space.to_dict(),
                "seed": seed,
                **prefixed("data", images.to_dict()),
                **settings.decisive("pretrain"),
            }
            inputs = {"the set of images": pool.digest, **_digest_of_init(settings.init, layout)}
            stage = Stage("pretrain", layout.supernet, depends_on, inputs)
            done = distributed.of_first(first and stage.is_finished())
            if not done:  # before `begin`, which may set a finished training aside
                trainer = make_trainer(
                    settings, seed, space, pool, layout.supernet, stage.plain_config(), report
                )
                distributed.of_all(None)  # barrier: every process passed its checks
            message = stage.begin()[1] if first else ""
            if message:
                report(Event("pretrain", message))
            if not done:
                warn_of_images(trainer.method, pool, images, report)
                _fit(trainer, stage)
    return PretrainResult(layout.weights, pool.skipped, done)


def _fit(trainer: Trainer, stage: Stage) -> None:
    try:
        trainer.fit()
    except Interrupted as error:
        path = trainer.state_path
        state = f"its last good state is in {path}" if path.exists() else "it has no state yet"
        raise Interrupted(f"{error}; {state}") from None
    if distributed.rank() == 0:
        stage.finish([trainer.weights_path.name])
    if trainer.stopped_by is not None:
        raise Interrupted(f"stopped by {trainer.stopped_by.name} as pre-training was finished")


def _digest_of_init(init: Path | None, layout: Layout) -> dict[str, str]:
    if init is None:
        return {}
    path = weights_file(init)
    if path.resolve() == layout.weights.resolve():
        raise CheckpointError(
            "weights of another run for pretrain.init",
            f"{path}, which this run writes",
            "Choose another output_dir for this run.",
        )
    if not path.is_file():
        raise CheckpointError(
            f"weights to start from at {path}", "no such file", "Correct pretrain.init."
        )
    return {f"pretrain.init {path}": sha256_of(path)}
