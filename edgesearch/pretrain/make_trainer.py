"""Construction of a trainer from settings, space and images."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgesearch.data.image_pool import ImagePool
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError, TrainingError
from edgesearch.events import Event, Report
from edgesearch.pretrain.distillation import Distillation
from edgesearch.pretrain.key_queue import queues_of
from edgesearch.pretrain.knn_monitor import KnnMonitor
from edgesearch.pretrain.lessons import SecondLesson, make_lesson
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.method import Method, make_method
from edgesearch.pretrain.progress import TrainingReporter
from edgesearch.pretrain.recipes import RECIPES
from edgesearch.pretrain.taught_views import Crops, Teaching
from edgesearch.pretrain.trainer import WEIGHTS, Trainer
from edgesearch.space import SearchSpace
from edgesearch.supernet.public_weights import embed, read_public_weights
from edgesearch.supernet.weight_packages import PACKAGES, packaged_file
from edgesearch.supernet.weights import Origin, SupernetWeights, metadata_of
from edgesearch.teacher.teacher import Grid, Teacher, open_teacher
from edgesearch.teacher.teacher_cache import TeacherCache
from edgesearch.training.randomness import seeded
from edgesearch.training.torch_device import torch_device

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import AugmentationSettings, PretrainSettings
    from edgesearch.teacher.settings import TeacherSettings


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
    init = None if settings.init is None else weights_file(settings.init)
    options, teaching = settings.method_options(), None
    if settings.teacher is not None:
        teaching = _teaching(settings, seed, space, pool, folder.with_name("teacher"), init, report)
        if RECIPES[settings.method].taught:
            options["projector_dim"] = teaching.cache.dim
    method = make_method(settings.method, space, seed, **options)
    augmentations: tuple[AugmentationSettings, ...] = method.views(settings.augmentation)
    if settings.teacher is not None and teaching is not None:
        _teach(method, settings, teaching.cache.dim, seed)
        augmentations = augmentations[: 1 if isinstance(method, Distillation) else 2]
    origin = None
    if init is not None:
        package = PACKAGES.get(str(settings.init))
        licence = settings.init_licence or (package.licence if package else None)
        origin = init_from(method, settings.method, init, report, licence, grey=settings.init_grey)
        given = pool.preprocess(space.largest.resolution)
        if origin is not None and (given.mean, given.std) != (origin.mean, origin.std):
            text = (
                f"the initial weights expect pixels normalised by mean {list(origin.mean)} and "
                f"deviation {list(origin.std)}, but data.mean and data.std say otherwise"
            )
            report(Event("pretrain", text))
    loader = make_loader(
        pool.train,
        augmentations,
        pool.preprocess(space.largest.resolution),
        settings,
        seed,
        device,
        teaching,
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
        origin=origin,
        teaching=teaching,
    )


def _teach(method: Method, settings: PretrainSettings, dim: int, seed: int) -> None:
    """Have a method learn from a teacher whose embeddings have length `dim`."""
    assert settings.teacher is not None
    with seeded(seed):
        lesson = make_lesson(settings.teacher, dim)
        if isinstance(method, Distillation):
            method.learn(lesson)
        else:
            length, weight = method.query.supernet.feature_dim, settings.teacher_weight
            method.second_lesson = SecondLesson(length, dim, lesson, weight)


def _teaching(
    settings: PretrainSettings,
    seed: int,
    space: SearchSpace,
    pool: ImagePool,
    folder: Path,
    init: Path | None,
    report: Report,
) -> Teaching:
    """The teacher, tried on two images, and the place of its embeddings or maps.

    Raises:
        UserError: The teacher cannot be used.
    """
    assert settings.teacher is not None
    teacher = open_teacher(settings.teacher, init, torch_device(settings.device))
    crops = Crops(seed, settings.augmentation.crop_scale, settings.teacher.crops)
    count = len(pool.train)
    ends = (_first_readable(pool, order) for order in (range(count), range(count)[::-1]))
    first, last = (crops(image, index, 0, teacher.size) for index, image in ends)
    grid = None
    if settings.wants_maps:
        grid = _grid(settings.teacher, teacher, space, first, report)
        if grid is not None:  # embeddings stay where they are
            folder = folder / "maps"
    dim = teacher.try_on(first, last, grid)
    about = {
        "images": pool.digest,
        "teacher": teacher.digest,
        "crop_scale": crops.scale,
        "crops": crops.count,
    }
    cache = TeacherCache(folder, about, len(pool.train) * crops.count, dim, grid)
    return Teaching(teacher, pool.train, crops, cache, report)


def _grid(
    settings: TeacherSettings,
    teacher: Teacher,
    space: SearchSpace,
    image: torch.Tensor,
    report: Report,
) -> Grid | None:
    """The grid of the maps that are compared; None, with a notice, where these are no maps.

    Raises:
        TrainingError: There are none, though `pretrain.teacher.dense` is true.
    """
    own = space.grid(len(space.stages))  # a finer one of the teacher would be averaged to it
    grid = teacher.grid_of(image, min(settings.grid, own))
    if own > 1 and grid is not None:
        return grid
    if own == 1:
        found = f"a single place in the largest network's, at {space.largest.resolution} pixels"
        remedy = "choose larger space.resolutions"
    else:
        found = f"no map of several places from the teacher, {teacher.name}"
        remedy = "choose a teacher that gives maps (an ONNX file's output: pretrain.teacher.output)"
    if settings.dense:
        raise TrainingError(
            "feature maps of several places, of teacher and subnets, for pretrain.teacher.dense",
            found,
            f"Leave pretrain.teacher.dense out to compare embeddings, or {remedy}.",
        )
    report(Event("pretrain", f"embeddings are compared with the teacher's, not maps: {found}"))
    return None


def _first_readable(pool: ImagePool, order: range) -> tuple[int, torch.Tensor]:
    """Index and pixels (C, H, W) uint8 of the first image that can be read.

    Raises:
        DataError: There is none.
    """
    for index in order[:-1]:
        with suppress(DataError):
            return index, pool.train.load(index)
    return order[-1], pool.train.load(order[-1])


def weights_file(init: Path) -> Path:
    """The file of `pretrain.init`: a run's folder, a file, or a name in `PACKAGES`.

    Raises:
        CheckpointError: The package of a name is not installed.
    """
    if str(init) in PACKAGES and not init.exists():
        return packaged_file(str(init))
    for candidate in (init / "supernet" / WEIGHTS, init / WEIGHTS):
        if candidate.exists():
            return candidate
    return init


def init_from(
    method: Method,
    name: str,
    path: Path,
    report: Report,
    licence: str | None = None,
    *,
    grey: bool = False,
) -> Origin | None:
    """Begin with another run of the same space, or with public weights.

    Of another run, projectors are used if their shapes are equal.

    Returns:
        The public weights that the supernet comes from, if any.

    Raises:
        CheckpointError: The file is missing, damaged or of another space, or no known network.
        SpaceError: The space does not hold the network of public weights.
    """
    if not metadata_of(path):
        return _init_from_public(method, path, report, licence, grey)
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
    return weights.origin


def _init_from_public(
    method: Method, path: Path, report: Report, licence: str | None, grey: bool
) -> Origin:
    public = read_public_weights(path)
    if grey:
        public = public.in_grey()
    backbone = method.query.supernet.backbone
    member = embed(public, method.space, backbone)
    if method.key is not None:
        method.key.supernet.backbone.load_state_dict(backbone.state_dict())
    text = f"begins with {public.kind} weights of {path.name}, held by {member}"
    if licence is None:
        text += "; their licence is unknown: state it as pretrain.init_licence, for the manifests"
    report(Event("pretrain", text))
    return Origin(
        f"{path.name} ({public.kind})", licence, dict(member), False, public.mean, public.std
    )


def warn_of_images(
    method: Method, pool: ImagePool, source: DataSettings, report: Report, trains: bool = True
) -> None:
    """Report unreadable images, too few for the queue of a training, or enlarged ones."""
    for left_out in pool.unreadable:
        report(Event("pretrain", f"images left out: {left_out}"))
    count = len(pool.train)
    size = max((queue.size for queue in queues_of(method) if queue.negatives), default=0)
    if trains and size > count // 4:
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
