"""Construction of a trainer from settings, space and images."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgesearch.data.image_pool import ImagePool
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError
from edgesearch.events import Event, Report
from edgesearch.pretrain.hardware import torch_device
from edgesearch.pretrain.key_queue import queues_of
from edgesearch.pretrain.knn_monitor import KnnMonitor
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.method import Method, make_method
from edgesearch.pretrain.progress import TrainingReporter
from edgesearch.pretrain.trainer import WEIGHTS, Trainer
from edgesearch.space import SearchSpace
from edgesearch.supernet.weights import SupernetWeights

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import PretrainSettings


def make_trainer(
    settings: PretrainSettings,
    seed: int,
    space: SearchSpace,
    pool: ImagePool,
    folder: Path,
    identity: dict[str, Any],
    report: Report,
) -> Trainer:
    """A trainer with fresh weights or those of `pretrain.init`; sets torch's number of threads.

    Only the kNN monitor uses labels; see `Trainer` for `folder` and `identity`.

    Raises:
        UserError: The settings do not fit the images or the machine.
    """
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    device = torch_device(settings.device)
    method = make_method(settings.method, space, seed, **settings.method_options())
    if settings.init is not None:
        init_from(method, settings.method, weights_file(settings.init), report)
    loader = make_loader(
        pool.train,
        method.views(settings.augmentation),
        pool.preprocess(space.largest.resolution),
        settings,
        seed,
        device,
    )
    listener = TrainingReporter(report, None if settings.augmentation.batched else settings.workers)
    monitor = KnnMonitor(pool, settings.knn_k, device, listener.notice) if pool.has_labels else None
    return Trainer(
        method,
        loader,
        settings,
        seed,
        folder,
        identity=identity,
        monitor=monitor,
        listener=listener,
    )


def weights_file(init: Path) -> Path:
    """The weights of another run, given its output folder, supernet folder or weights file."""
    for candidate in (init / "supernet" / WEIGHTS, init / WEIGHTS):
        if candidate.exists():
            return candidate
    return init


def init_from(method: Method, name: str, path: Path, report: Report) -> None:
    """Load the backbones, and projectors of equal shape, of another run of the same space.

    Raises:
        CheckpointError: The file is missing, damaged or of another space.
    """
    weights = SupernetWeights.load(path, method.space)
    query = weights.query, weights.query_projector, weights.query_dense_projector
    key = weights.key, weights.key_projector, weights.key_dense_projector
    for encoder, (backbone, *projectors) in ((method.query, query), (method.key, key)):
        if encoder is None:
            continue
        encoder.supernet.backbone.load_state_dict(dict(backbone))
        own_projectors = encoder.projector, encoder.dense_projector
        for projector, state in zip(own_projectors, projectors, strict=True):
            if projector is None or state is None:
                continue
            own = {key: tensor.shape for key, tensor in projector.state_dict().items()}
            if own == {key: tensor.shape for key, tensor in state.items()}:
                projector.load_state_dict(dict(state))
    if weights.method not in (None, name):
        text = (
            f"the initial weights were trained by {weights.method}: {name} uses the backbones, and "
            "the projectors of the same shape (pretrain.init)"
        )
        report(Event("pretrain", text))


def warn_of_images(method: Method, pool: ImagePool, source: DataSettings, report: Report) -> None:
    """Report unreadable images, too few for the queue, or enlarged more than twice."""
    for left_out in pool.unreadable:
        report(Event("pretrain", f"images left out: {left_out}"))
    count = len(pool.train)
    size = max((queue.size for queue in queues_of(method) if queue.negatives), default=0)
    if size > count // 4:
        large = (
            f"a queue of {size} is more than a quarter of the {count} images: most negatives are "
            "views of images still in it, and kNN accuracy suffers (pretrain.queue_size)"
        )
        report(Event("pretrain", large))
    sides, resolution = [], method.space.largest.resolution
    for index in range(0, count, max(1, count // 64)):
        with suppress(DataError):
            sides.append(min(pool.train.load(index).shape[1:]))
    median = sorted(sides)[len(sides) // 2] if sides else resolution
    if 2 * median < resolution and source.source != "digits":
        small = (
            f"images with a short side of {median} pixels are enlarged to {resolution}: a smaller "
            "resolution would lose nothing (space.resolutions)"
        )
        report(Event("pretrain", small))
