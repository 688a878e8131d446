"""Stage finetune: trains whole networks with labels."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from devices.files import sha256_of, write_json
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import ExportError, Interrupted, StageError, UserError
from edgesearch.events import silent
from edgesearch.export.deployable import Deployable, make_whole_deployable
from edgesearch.inputs import read_json
from edgesearch.latency.load_table import load_table
from edgesearch.processes import distributed
from edgesearch.processes.shared_work import check_same_in_all
from edgesearch.run.context import IMAGES, WEIGHTS, RunContext
from edgesearch.run.room import check_memory
from edgesearch.run.stage import Stage, read_record
from edgesearch.search.winners import Winner, Winners
from edgesearch.space import Architecture
from edgesearch.stages.search import WINNERS
from edgesearch.stages.within_budget import WithinBudget, bounded, in_turn
from edgesearch.tasks.finetuning import FIGURES, Finetuned, Finetuning
from edgesearch.tasks.finetuning import WEIGHTS as TRAINED
from edgesearch.tasks.model import TaskModel

RESULTS = "results.json"
MEASURED = "winners.json"
"""The winners as measured before their training, with those whose places they took."""
OF_WINNERS = "winners"


@dataclass(frozen=True)
class FinetunedRow(Finetuned):
    """A trained network of the run; see `Finetuned`."""

    architecture: str
    folder: Path


@dataclass(frozen=True)
class FinetuneResult:
    """Result of `finetune`.

    Attributes:
        metric: Name of the figure that decides.
    """

    task: str
    head: str
    metric: str
    rows: tuple[FinetunedRow, ...]
    results_path: Path
    skipped: bool


def finetune(run: RunContext, *, anew: bool = False) -> FinetuneResult:
    """Train the winners (or `finetune.start`) for the task, with labels; writes `finetune/`.

    Winners are measured first, so that none is trained that the device runs too slowly: a reserve
    of the search takes its place. Resumes where it was stopped; does nothing if finished. Under
    `torchrun` the processes train together.

    Args:
        run: The run.
        anew: Set aside networks of other settings or images even if they took long.

    Raises:
        StageError: No task is configured; or without `anew`, there are such networks.
        ExportError: A winner is too slow, and no reserve is left.
    """
    require_task(run)
    with distributed.processes(notice=run.teller("finetune")):
        first = distributed.rank() == 0
        with run.writing() if first else nullcontext():
            pool = run.open_images()
            check_same_in_all({IMAGES: pool.digest})
            chosen = starts(run)
            stage = finetune_stage(run, pool)

            def work(finetuning: Finetuning) -> list[str]:
                return _train(run, finetuning, chosen, stage.settings)

            prepare = partial(_prepare, run, pool)
            skipped = stage.do(run, prepare, work, anew=anew)
    return _result(run, skipped)


def require_task(run: RunContext) -> None:
    """Refuse a run without a task.

    Raises:
        StageError: `finetune.task` is null.
    """
    if run.config.finetune.task is None:
        raise StageError(
            "a task with labels",
            "finetune.task null",
            "Set finetune.task=classification (or another task) in the configuration.",
        )


def check_finetune(run: RunContext) -> None:
    """Check before the first stage whether the fine-tuning can run; nothing without a task.

    Raises:
        UserError: It cannot.
    """
    if run.config.finetune.task is None:
        return
    for text in run.config.finetune.start:
        if text not in (OF_WINNERS, "largest", "smallest"):
            run.space.from_text(text)
    open_finetuning(run, run.open_images(), weights=False).images  # noqa: B018


def open_finetuning(
    run: RunContext, pool: ImagePool | None = None, weights: bool = True
) -> Finetuning:
    """Makes and trains whole networks as the run is configured.

    Args:
        run: The run.
        pool: Its images, if they are open.
        weights: Load the supernet, unless `finetune.weights` is random.
    """
    settings, search = run.config.finetune, run.config.search
    check_memory(run, images=0)
    pool = pool or run.open_images()
    return Finetuning(
        settings=settings,
        space=run.space,
        pool=pool,
        seed=run.config.seed,
        weights=run.load_weights() if weights and settings.weights == "supernet" else None,
        calibration_images=search.calibration_images,
        calibration_batch=search.batch_size,
        report=run.report if distributed.rank() == 0 else silent,
    )


def starts(run: RunContext) -> dict[str, Architecture]:
    """The architectures of `finetune.start`, by name; the largest first where it teaches.

    Raises:
        SpaceError: The space has no architecture of a name.
        StageError: There are no winners yet.
    """
    space, settings = run.space, run.config.finetune
    found: dict[str, Architecture] = {}
    if settings.distill:
        found["largest"] = space.largest
    for text in settings.start:
        if text == OF_WINNERS:
            found |= Winners.load(run.files.search.chosen, space).architectures
        elif text in ("largest", "smallest"):
            found[text] = getattr(space, text)
        else:
            found[text] = space.from_text(text)
    return found


def folder_of(run: RunContext, architecture: Architecture) -> Path:
    """Where a trained network of the run is."""
    return run.files.finetune / str(architecture)


def identity_of(run: RunContext, pool: ImagePool) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings and inputs that a training depends on."""
    inputs = {IMAGES: pool.digest}
    if run.config.finetune.weights == "supernet":
        inputs[WEIGHTS] = run.weights_digest()
    return run.decisive("calibration", "finetune"), inputs


def finetune_stage(run: RunContext, pool: ImagePool) -> Stage:
    """The stage with everything that the networks depend on."""
    settings, inputs = identity_of(run, pool)
    if OF_WINNERS in run.config.finetune.start:
        inputs[WINNERS] = sha256_of(run.files.search.chosen)
    return Stage("finetune", run.files.finetune, settings, inputs)


def found_before_training(run: RunContext, pool: ImagePool) -> dict[str, Winner]:
    """The winners as this stage measured them for the present search, by name; empty if not."""
    stage, path = finetune_stage(run, pool), run.files.finetune / MEASURED
    record = read_record(stage.folder)
    if record is None or stage.changes(record) or not path.exists():
        return {}
    return {winner.name: winner for winner in Winners.load(path, run.space).winners}


def _prepare(run: RunContext, pool: ImagePool) -> Finetuning:
    finetuning = open_finetuning(run, pool)
    finetuning.images  # noqa: B018  # refuses what cannot be trained
    return finetuning


def train_one(
    run: RunContext,
    finetuning: Finetuning,
    architecture: Architecture,
    name: str,
    identity: Mapping[str, Any],
) -> Finetuned:
    """Train a subnet in its folder, or read it; imitates the largest where so configured."""
    teacher = None
    largest = run.space.largest
    if run.config.finetune.distill and architecture != largest:
        teacher = finetuning.load(folder_of(run, largest), largest)
    model = finetuning.subnet(architecture)
    about = {**identity, "architecture": str(architecture)}
    return finetuning.train(model, folder_of(run, architecture), name, about, teacher)


def is_trained(run: RunContext, finetuning: Finetuning, architecture: Architecture) -> bool:
    """Whether a subnet of the run has been trained as configured."""
    identity, _ = identity_of(run, finetuning.pool)
    about = {**identity, "architecture": str(architecture)}
    return finetuning.finished(folder_of(run, architecture), about) is not None


def trained(run: RunContext, finetuning: Finetuning, architecture: Architecture) -> TaskModel:
    """A trained subnet of the run; it is trained now if it has not been."""
    identity, _ = identity_of(run, finetuning.pool)
    if run.config.finetune.distill:
        train_one(run, finetuning, run.space.largest, "largest", identity)
    train_one(run, finetuning, architecture, str(architecture), identity)
    return finetuning.load(folder_of(run, architecture), architecture)


def _within_budget(run: RunContext, finetuning: Finetuning) -> dict[str, Architecture]:
    """The winners, by name, or the reserves that take their places as measured untrained.

    They stay as chosen where the device or its table is out of reach.
    """
    path, device = run.files.finetune / MEASURED, run.device
    chosen = Winners.load(run.files.search.chosen, run.space)
    if not path.exists():
        if not bounded(chosen, device.name):
            return chosen.architectures
        most = run.config.export.max_task_loss

        def untrained(architecture: Architecture) -> Deployable:
            model = finetuning.subnet(architecture)
            return make_whole_deployable(finetuning, model, architecture, most)

        try:
            accept = run.config.profile.accept
            load_table(run.files.table(device), run.space, device, accept, head=run.head)
            run.teller("finetune")(f"measuring the winners on {device.name} before their training")
            within = WithinBudget(run, "finetune", untrained, finetuning.calibration)
            with tempfile.TemporaryDirectory(prefix="edgesearch-") as folder:
                find = partial(within.find, folder=Path(folder))
                in_turn(chosen, device.name, run.config.export.max_replacements, find).save(path)
        except ExportError:
            raise
        except UserError as error:
            run.teller("finetune")(
                f"the winners could not be measured on {device.name} before their training "
                f"({error.found}): export measures them, and trains reserves of those that are too "
                "slow"
            )
            return chosen.architectures
    return Winners.load(path, run.space).architectures


def _train(
    run: RunContext,
    finetuning: Finetuning,
    chosen: dict[str, Architecture],
    identity: Mapping[str, Any],
) -> list[str]:
    run.set_threads("finetune")
    finetuning.tell()
    rows = []
    try:
        if OF_WINNERS in run.config.finetune.start:
            first = distributed.rank() == 0
            chosen |= distributed.of_first(_within_budget(run, finetuning) if first else {})
        for name, architecture in chosen.items():
            found = train_one(run, finetuning, architecture, name, identity)
            rows.append({**asdict(found), "architecture": str(architecture)})
    except KeyboardInterrupt:
        raise Interrupted("fine-tuning stopped; finished networks are kept") from None
    if distributed.rank() == 0:
        settings = run.config.finetune
        about = {"task": settings.task, "head": settings.head, "metric": finetuning.record.metric}
        write_json(run.files.finetune / RESULTS, {**about, "rows": rows})
    measured = [MEASURED] if (run.files.finetune / MEASURED).exists() else []
    files = [f"{row['architecture']}/{name}" for row in rows for name in (FIGURES, TRAINED)]
    return [RESULTS, *measured, *files]


def _result(run: RunContext, skipped: bool) -> FinetuneResult:
    path = run.files.finetune / RESULTS
    values = distributed.of_first(read_json(path, "finetune"))
    rows = tuple(
        FinetunedRow(**row, folder=run.files.finetune / row["architecture"])
        for row in values["rows"]
    )
    return FinetuneResult(values["task"], values["head"], values["metric"], rows, path, skipped)
