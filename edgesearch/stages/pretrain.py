"""Stage pretrain: from images and a space to a trained supernet."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from devices.files import sha256_of
from edgesearch.config import Config
from edgesearch.data.image_pool import ImagePool
from edgesearch.data.settings import DataSettings
from edgesearch.errors import CheckpointError, DataError, Interrupted
from edgesearch.events import Event, Report, silent
from edgesearch.pretrain.hardware import Hardware
from edgesearch.pretrain.key_queue import queues_of
from edgesearch.pretrain.knn_monitor import KnnMonitor
from edgesearch.pretrain.loader import Share, make_loader
from edgesearch.pretrain.method import Method
from edgesearch.pretrain.methods import METHODS
from edgesearch.pretrain.trainer import Trainer
from edgesearch.pretrain.trainer_config import TrainerConfig
from edgesearch.pretrain.training_events import TrainingTeller
from edgesearch.pretrain.views import Augmentation
from edgesearch.processes import distributed
from edgesearch.processes.shared_work import check_same_in_all
from edgesearch.run.context import RunContext
from edgesearch.run.files import RunFiles
from edgesearch.run.stage import Stage
from edgesearch.space import SearchSpace
from edgesearch.supernet.weights import SupernetWeights

LOOKED_AT = 64
"""Images whose size is looked at."""
_FREE = ("seed", "workers", "monitor_every_epochs", "checkpoint_minutes", "tensorboard")
"""Options that are no settings of `pretrain`: one stands apart, the others change no weight."""


@dataclass(frozen=True)
class ViewOptions:
    """How batches of views are made.

    Attributes:
        augmentation: How a view differs from its image.
        batched: Whole batches at once, from images in memory (for small images of one size).
        batch_size: Images in each step, of all processes together.
        workers: Processes that load images, where they are not augmented in batches.
    """

    augmentation: Augmentation
    batched: bool = False
    batch_size: int = 256
    workers: int = 2


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


def _pretrain(
    run: RunContext,
    *,
    trainer: TrainerConfig,
    views: ViewOptions,
    hardware: Hardware = Hardware(),  # noqa: B008 (frozen)
    method: str = "moco_v2",
    method_options: Mapping[str, Any],
    threads: int | None = None,
    init: Path | None = None,
    knn_k: int = 200,
) -> PretrainResult:
    """Train the supernet of a space on images without labels.

    Goes on from where it was stopped; does nothing if it is finished. Under `torchrun` its
    processes train together, and the first of them alone writes and reports.

    Args:
        space: The search space.
        images: The images; labels serve the kNN monitor only.
        output_dir: Gets `supernet/`.
        trainer: How to train; its seed seeds all that is random.
        views: How batches of views are made.
        hardware: What trains, and how batches are fitted to it.
        method: Key of `METHODS`.
        method_options: Keyword arguments of the method, such as those of `MoCoV2`; what is left
            out is as in its paper.
        threads: Of torch; as many as it chooses if None.
        init: Another run of the same space to start from.
        knn_k: Neighbours of the kNN monitor.
        report: Is told what happens.

    Raises:
        Interrupted: Stopped by a signal; the same call goes on.
        ProcessFailed: Another process of the run has failed.
        UserError: Something about images, configuration or files has to be mended.
    """
    space, images, output_dir, report = (
        run.space,
        run.config.data,
        run.config.output_dir,
        run.report,
    )
    with distributed.processes(notice=run.teller("pretrain")):
        first = distributed.rank() == 0
        report = report if first else silent
        pool = ImagePool(images, space.in_channels, trainer.seed, decode_all=views.batched)
        check_same_in_all({"the set of images": pool.digest})
        layout = RunFiles(output_dir)
        with run.writing() if first else nullcontext():
            options = {"method": method, **asdict(trainer), **asdict(views), **method_options}
            settings = {
                "space": space.to_dict(),
                "seed": trainer.seed,
                **images.decisive("data"),
                **prefixed("pretrain", {k: v for k, v in options.items() if k not in _FREE}),
                **prefixed("pretrain", _changes_of_results(hardware)),
            }
            inputs = {"the set of images": pool.digest, **_digest_of_init(init, layout)}
            stage = Stage("pretrain", layout.supernet, settings, inputs)
            done = distributed.of_first(first and stage.is_finished())
            if not done:  # before `begin`, which may set a finished training aside
                torch.set_num_threads(threads or torch.get_num_threads())
                model = METHODS[method](space, **method_options, seed=trainer.seed)
                if init is not None:
                    others = _start_from(model, _weights_file(init), space)
                    _warn_of_other_method(others, method, report)
                runner = _trainer(
                    model, pool, layout, trainer, views, hardware, knn_k, stage, report
                )
                distributed.of_all(None)  # none of the others refuses either
            message = stage.begin()[1] if first else ""
            if message:
                report(Event("pretrain", message))
            if not done:
                _tell_of_images(model, pool, images, report)
                _fit(runner, stage, layout)
    return PretrainResult(layout.weights, pool.skipped, done)


def _changes_of_results(hardware: Hardware) -> dict[str, Any]:
    """What of the hardware changes weights by more than rounding, where it is asked for."""
    asked = {"precision": hardware.precision, "bn_group_size": hardware.bn_group_size}
    return {name: value for name, value in asked.items() if value not in ("fp32", None)}


def _tell_of_images(model: Method, pool: ImagePool, images: DataSettings, report: Report) -> None:
    if pool.skipped:
        left_out = f"{pool.skipped} images could not be read and are left out"
        report(Event("pretrain", left_out))
    _warn_of_large_queue(model, pool, report)
    if images.source != "digits":
        _warn_of_small_images(pool, model.space.largest.resolution, report)


def _fit(runner: Trainer, stage: Stage, layout: RunFiles) -> None:
    try:
        runner.fit()
    except Interrupted as error:
        path = runner.state_path
        state = f"its last good state is in {path}" if path.exists() else "it has no state yet"
        raise Interrupted(f"{error}; {state}") from None
    if distributed.rank() == 0:
        stage.finish([layout.weights.name])
    if runner.stopped_by is not None:
        raise Interrupted(f"stopped by {runner.stopped_by.name} as pre-training was finished")


def _trainer(
    model: Method,
    pool: ImagePool,
    layout: RunFiles,
    trainer: TrainerConfig,
    views: ViewOptions,
    hardware: Hardware,
    knn_k: int,
    stage: Stage,
    report: Report,
) -> Trainer:
    space, device = model.space, hardware.torch_device()
    hardware.passes(model, views.batch_size, trainer.seed)  # refuses what cannot be cut
    loader = make_loader(
        pool.train,
        model.views(views.augmentation),
        pool.preprocess(space.largest.resolution),
        batched=views.batched,
        batch_size=views.batch_size,
        seed=trainer.seed,
        workers=views.workers,
        device=device,
        share=Share(distributed.rank(), distributed.world_size()),
    )
    teller = TrainingTeller(report, None if views.batched else views.workers)
    labels = pool.has_labels
    return Trainer(
        model,
        loader,
        trainer,
        layout.supernet,
        identity=stage.plain_settings(),
        monitor=KnnMonitor(pool, knn_k, device, teller.notice) if labels else None,
        hardware=hardware,
        on_epoch=teller.epoch,
        on_step=teller.step,
        notice=teller.notice,
    )


def _warn_of_large_queue(model: Method, pool: ImagePool, report: Report) -> None:
    """Say so if the negatives of a contrastive method are mostly views of the same images."""
    size = max((queue.size for queue in queues_of(model) if queue.negatives), default=0)
    if size <= len(pool.train) // 4:
        return
    large = (
        f"a queue of {size} is more than a quarter of the {len(pool.train)} images: "
        "most negatives are views of images still in it, and kNN accuracy suffers "
        "(pretrain.queue_size)"
    )
    report(Event("pretrain", large))


def _warn_of_small_images(pool: ImagePool, resolution: int, report: Report) -> None:
    """Say so if most images are enlarged more than twice."""
    sides = []
    for index in range(0, len(pool.train), max(1, len(pool.train) // LOOKED_AT)):
        with suppress(DataError):
            sides.append(min(pool.train.load(index).shape[1:]))
    if sides and (median := sorted(sides)[len(sides) // 2]) * 2 < resolution:
        small = (
            f"images with a short side of {median} pixels are enlarged to {resolution}: smaller "
            "networks would see as much (space.resolutions)"
        )
        report(Event("pretrain", small))


def _warn_of_other_method(others: str | None, method: str, report: Report) -> None:
    """Say so if the weights to start from are those of another method."""
    if others not in (None, method):
        start = (
            f"the weights to start from were trained by {others}: {method} takes over the "
            "backbones, and the projectors of the same shape (pretrain.init)"
        )
        report(Event("pretrain", start))


def _weights_file(init: Path) -> Path:
    """The weights of another run: its output folder, its supernet folder, or the file."""
    layout = RunFiles(init)
    for candidate in (layout.weights, init / layout.weights.name):
        if candidate.exists():
            return candidate
    return init


def _digest_of_init(init: Path | None, layout: RunFiles) -> dict[str, str]:
    if init is None:
        return {}
    path = _weights_file(init)
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


def _start_from(model: Method, path: Path, space: SearchSpace) -> str | None:
    """Take over the backbones, and the projectors where they have the same shape.

    Returns:
        The method that trained them, None where that is not known.
    """
    weights = SupernetWeights.load(path, space)
    query = weights.query, weights.query_projector, weights.query_dense_projector
    key = weights.key, weights.key_projector, weights.key_dense_projector
    for encoder, (backbone, *projectors) in ((model.query, query), (model.key, key)):
        if encoder is None:
            continue
        encoder.supernet.backbone.load_state_dict(dict(backbone))
        own_projectors = encoder.projector, encoder.dense_projector
        for projector, state in zip(own_projectors, projectors, strict=True):
            if projector is None or state is None:
                continue
            own = {name: tensor.shape for name, tensor in projector.state_dict().items()}
            if own == {name: tensor.shape for name, tensor in state.items()}:
                projector.load_state_dict(dict(state))
    return weights.method


def prefixed(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the path of their key in the configuration."""
    return {f"{section}.{name}": value for name, value in values.items()}


def pretrain(run: RunContext) -> PretrainResult:
    """Train the supernet of a space on images without labels."""
    return _pretrain(run, **_arguments(run.config))


def _arguments(config: Config) -> dict[str, Any]:
    """Arguments of `pretrain`."""
    section = config.pretrain
    return {
        "method": section.method,
        "trainer": TrainerConfig(
            epochs=section.epochs,
            lr=section.lr,
            weight_decay=section.weight_decay,
            momentum=section.momentum,
            warmup_epochs=section.warmup_epochs,
            optimizer=section.optimizer,
            random_subnets=section.random_subnets,
            largest_only_epochs=section.largest_only_epochs,
            loss_weights=section.loss_weights,
            distill=section.distill,
            faithful=section.faithful,
            monitor_every_epochs=section.knn_every_epochs,
            checkpoint_minutes=section.checkpoint_minutes,
            tensorboard=section.tensorboard,
            seed=config.seed,
        ),
        "hardware": Hardware(
            device=section.device,
            precision=section.precision,
            bn_group_size=section.bn_group_size,
            accumulation=section.accumulation,
            compile=section.compile,
        ),
        "views": ViewOptions(
            augmentation=_augmentation(config),
            batched=section.augmentation.batched,
            batch_size=section.batch_size,
            workers=section.workers,
        ),
        "method_options": section.method_options(),
        "threads": section.threads,
        "init": section.init,
        "knn_k": section.knn_k,
    }


def _augmentation(config: Config) -> Augmentation:
    views = config.pretrain.augmentation
    return Augmentation(
        crop_scale=views.crop_scale,
        flip_probability=views.flip_probability,
        jitter_probability=views.jitter.probability,
        brightness=views.jitter.brightness,
        contrast=views.jitter.contrast,
        saturation=views.jitter.saturation,
        hue=views.jitter.hue,
        grayscale_probability=views.grayscale_probability,
        blur_probability=views.blur_probability,
        solarize_probability=views.solarize_probability,
    )
