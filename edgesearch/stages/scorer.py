"""The score of a run's candidates, with the reference that the configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import SearchError, UserError
from edgesearch.events import Event, Report
from edgesearch.pretrain.make_trainer import weights_file
from edgesearch.processes import distributed
from edgesearch.run.context import RunContext
from edgesearch.search.agreement import Agreement, images_of_score, make_agreement
from edgesearch.search.settings import SearchSettings
from edgesearch.stages.pretrain import digest_of_init, digests_of_teacher
from edgesearch.supernet.calibrate import keep_statistics
from edgesearch.supernet.public_weights import read_public_weights
from edgesearch.supernet.weights import SupernetWeights, metadata_of
from edgesearch.teacher.teacher import Teacher, open_teacher
from edgesearch.teacher.teacher_cache import TeacherCache
from edgesearch.training.torch_device import torch_device

AT_ONCE = 64
"""Images that a teacher embeds at once."""


def make_scorer(
    run: RunContext,
    weights: SupernetWeights,
    pool: ImagePool,
    report: Report,
    settings: SearchSettings | None = None,
) -> Agreement:
    """The score of the run; under torchrun all processes call this.

    Args:
        run: The run.
        weights: Its supernet.
        pool: Its images.
        report: Receives notices, and the progress of a teacher.
        settings: Another section `search` than that of the run.

    Raises:
        UserError: The reference cannot be used, or the images do not suffice.
    """
    settings = settings or run.config.search
    name = settings.foreign_reference
    given = None if name is None else foreign_reference(run, name, pool, report)
    return make_agreement(weights, pool, settings, report, given)


def check_scorer(run: RunContext) -> None:
    """Check before anything long that the reference can be used.

    Raises:
        UserError: It cannot.
    """
    foreign = run.config.search.foreign_reference
    if foreign == "init":
        _init_network(run)
    elif foreign == "teacher":
        _open_teacher(run)


def inputs_of_score(run: RunContext) -> dict[str, str]:
    """Digests of the files of the reference, by display name."""
    foreign = run.config.search.foreign_reference
    if foreign == "init":
        return digest_of_init(run)
    return digests_of_teacher(run) if foreign == "teacher" else {}


def foreign_reference(
    run: RunContext, name: str, pool: ImagePool, report: Report
) -> nn.Sequential | torch.Tensor:
    """The reference init, a network, or teacher, its embeddings (N, D) of the images of the score.

    Raises:
        UserError: It cannot be used.
    """
    return _init_network(run) if name == "init" else _teacher_embeddings(run, pool, report)


def known_references(run: RunContext) -> list[str]:
    """The references of FOREIGN that the configuration names; what cannot be read is told."""
    found = []
    for name, open_one in (("init", _init_network), ("teacher", _open_teacher)):
        if getattr(run.config.pretrain, name) is not None:
            try:
                open_one(run)
                found.append(name)
            except UserError as error:
                run.teller("rank")(f"no score has the reference {name}: {error}")
    return found


def _init_network(run: RunContext) -> nn.Sequential:
    """The network of `pretrain.init`, images to features; public weights keep their statistics.

    Raises:
        UserError: The file cannot be read, or there is none.
    """
    path = _init(run)
    if path is None:
        raise SearchError(
            "pretrain.init for search.reference init", "none", "Set it, or another reference."
        )
    if metadata_of(path):
        return nn.Sequential(SupernetWeights.load(path, run.space).subnet(run.space.largest))
    network = read_public_weights(path).network()
    keep_statistics(network)
    return nn.Sequential(network)


def _teacher_embeddings(run: RunContext, pool: ImagePool, report: Report) -> torch.Tensor:
    """Computed by the first process, and kept in a file."""
    embeddings: torch.Tensor | None = None
    if distributed.rank() == 0:
        teacher = _open_teacher(run)
        first, count = images_of_score(len(pool.train), run.config.search)
        images = pool.pixels(teacher.size, first, count)
        dim = teacher.try_on(images[0], images[-1])
        about = {
            "images": pool.digest,
            "teacher": teacher.digest,
            "seed": pool.seed,
            "first": first,
        }
        cache = TeacherCache(run.files.whole_images, about, len(images), dim)

        def after(done: int) -> None:
            report(Event("search", f"{teacher.name} embeds images", done, len(images), within=True))

        if text := cache.already():
            report(Event("search", text))
        if cache.done < cache.rows:
            cache.fill(lambda rows: teacher(images[rows.start : rows.stop]), AT_ONCE, after)
        embeddings = cache[np.arange(cache.rows)]
    return cast(torch.Tensor, distributed.of_first(embeddings))


def _open_teacher(run: RunContext) -> Teacher:
    pretrain = run.config.pretrain
    if pretrain.teacher is None:
        raise SearchError(
            "pretrain.teacher for search.reference teacher", "none", "Set it, or another reference."
        )
    return open_teacher(pretrain.teacher, _init(run), torch_device(pretrain.device))


def _init(run: RunContext) -> Path | None:
    init = run.config.pretrain.init
    return None if init is None else weights_file(init)
