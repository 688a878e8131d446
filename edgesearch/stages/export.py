"""Stage export: builds, verifies and measures the winners' engines."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from devices.files import sha256_of
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import ExportError, Interrupted, SpaceError, StageError
from edgesearch.events import Event, silent
from edgesearch.export.deployable import (
    Deployable,
    is_converted,
    is_in_int8,
    make_deployable,
    make_whole_deployable,
    write_for_tensorrt,
    write_in_format,
    write_winner,
)
from edgesearch.export.engines import ONNX_FILE, TensorRTTarget, build_engines
from edgesearch.export.exportable import buildable, check_batch, check_images, check_target
from edgesearch.export.manifest import MANIFEST, read_manifest
from edgesearch.export.settings import ExportSettings
from edgesearch.formats.onnx_export import export_network
from edgesearch.formats.precisions import PRECISIONS, precision_of
from edgesearch.latency.load_table import load_table, tell_doubt
from edgesearch.latency.table import (
    table_digest,
)
from edgesearch.run.context import IMAGES, WEIGHTS, RunContext
from edgesearch.run.room import check_memory
from edgesearch.run.stage import Stage, read_record, tell_if_outdated
from edgesearch.search.winners import Winner, Winners
from edgesearch.space import Architecture
from edgesearch.stages.finetune import (
    found_before_training,
    is_trained,
    open_finetuning,
    trained,
)
from edgesearch.stages.search import WINNERS, check_searched_for
from edgesearch.stages.within_budget import WithinBudget, in_turn
from edgesearch.supernet.weights import SupernetWeights
from edgesearch.tasks.finetuning import Finetuning
from edgesearch.tasks.known_tasks import TASKS
from profilers import LatencyTable

POST_PROCESSING = "place of the post-processing"
"""What files depend on beside settings: in the graph or in the kit."""


@dataclass(frozen=True)
class ExportResult:
    """Result of `export`."""

    winners: Winners
    folders: tuple[Path, ...]
    manifests: tuple[dict[str, Any], ...]
    skipped: bool


def export(run: RunContext, *, anew: bool = False) -> ExportResult:
    """Export, verify and measure the winners, and replace those that are too slow.

    Writes `engines/`, and rewrites `winners.json`.

    Args:
        run: The run.
        anew: Set aside engines of other winners or settings even if they took long.

    Raises:
        StageError: Without `anew`, there are such engines.
    """
    settings, device = run.config.export, run.device
    check_batch(device, settings.batch)
    with run.writing():
        tensorrt = buildable(target_of(run), run.report)
        chosen = Winners.load(run.files.search.chosen, run.space)
        accept = run.config.profile.accept
        table = run.files.table(device)
        load_table(table, run.space, device, accept, "export", run.report, head=run.head)
        check_searched_for(run)
        made = ("pretrain", run.files.supernet), ("search", run.files.search.folder)
        for name, folder in made:
            sections = ("pretrain",) if name == "pretrain" else ("device", "search")
            tell_if_outdated(run, "export", name, folder, run.decisive(*sections))
        pool = run.open_images()
        stage = export_stage(run, pool, tensorrt)

        def prepare() -> _Exporter:
            check_target(tensorrt)
            resolutions = {winner.architecture.resolution for winner in chosen.winners}
            _check_images(run, pool, resolutions, tensorrt)
            check_memory(run, images=0)
            finetuning, weights = None, run.load_weights()
            if weights.origin is not None and weights.origin.licence is None:
                run.teller("export")(
                    f"the licence of the initial weights ({weights.origin.source}) is unknown, and "
                    "the manifests will say so: state it as pretrain.init_licence"
                )
            if run.config.finetune.task is not None:
                finetuning = open_finetuning(run, pool)
            return _Exporter(run, weights, pool, tensorrt, finetuning)

        def work(exporter: _Exporter) -> list[str]:
            try:
                measured = exporter.export_all(chosen, settings.max_replacements)
            except KeyboardInterrupt:
                raise Interrupted("export stopped; finished winners are kept") from None
            path = run.files.measured
            measured.save(path)
            return [*(f"{winner.name}/{MANIFEST}" for winner in measured.winners), path.name]

        return _result(run, skipped=stage.do(run, prepare, work, anew=anew))


def export_stage(run: RunContext, pool: ImagePool, tensorrt: TensorRTTarget | None) -> Stage:
    """The stage with everything that the engines depend on."""
    task = run.config.finetune.task
    finetunes = () if task is None else ("finetune",)
    form = {}
    if task is not None and TASKS[task].in_graph is not None:
        suppresses = run.device.runtime_record.suppresses_boxes(run.device.provider)
        form[POST_PROCESSING] = "graph" if suppresses else "kit"
    return Stage(
        "export",
        run.files.engines,
        {
            **run.decisive("device", "score", "export", *finetunes),
            "data.licence": run.config.data.licence,
            "pretrain.init_licence": run.config.pretrain.init_licence,
            "export.tensorrt": _described(tensorrt),
            "evaluation.knn_k": run.config.evaluation.knn_k,
        },
        {
            WEIGHTS: run.weights_digest(),
            WINNERS: sha256_of(run.files.search.chosen),
            IMAGES: pool.digest,
            **form,
        },
        cheap=[*form],
        intact=partial(_intact, run),
    )


def check_export(run: RunContext) -> None:
    """Check before the first stage whether the export can run.

    Raises:
        UserError: It cannot.
    """
    check_batch(run.device, run.config.export.batch)
    tensorrt = buildable(target_of(run), silent)
    record = read_record(run.files.engines) or {"finished": False}
    built = record["finished"] and record["settings"].get("export.tensorrt")
    if tensorrt is not None and built != _described(tensorrt):
        check_target(tensorrt)
    # The winners' resolutions are not known yet; one tells whether there are enough images.
    _check_images(run, run.open_images(), {run.space.largest.resolution}, tensorrt)


def _check_images(
    run: RunContext, pool: ImagePool, resolutions: Collection[int], tensorrt: TensorRTTarget | None
) -> None:
    count = run.config.search.calibration_images
    calibration = count if is_converted(run.device, tensorrt) else None
    logits = run.config.export.output == "logits"
    check_images(pool, resolutions, run.device.batch, calibration, logits=logits)


def target_of(run: RunContext) -> TensorRTTarget | None:
    """The GPUs that engines are built for; None if none are."""
    settings = run.config.export.tensorrt
    if settings is None:
        return None
    return TensorRTTarget.of_device(run.device, settings.compute_capabilities, settings.precision)


def _described(tensorrt: TensorRTTarget | None) -> dict[str, Any] | None:
    if tensorrt is None:
        return None
    capabilities = list(tensorrt.compute_capabilities)
    return {"compute_capabilities": capabilities, "precision": tensorrt.precision}


def _result(run: RunContext, skipped: bool) -> ExportResult:
    """The result of a finished stage; winners.json is updated to match it."""
    files = run.files
    winners = Winners.load(files.measured, run.space)
    # A repeated search with the same choice has rewritten winners.json without latencies.
    found = files.winners.read_bytes() if files.winners.exists() else b""
    if run.may_write and found != files.measured.read_bytes():
        winners.save(files.winners)
    folders = tuple(files.engines / winner.name for winner in winners.winners)
    return ExportResult(winners, folders, tuple(map(read_manifest, folders)), skipped)


def _intact(run: RunContext) -> bool:
    """Whether all files in the winners' manifests are unchanged."""
    try:
        for winner in Winners.load(run.files.measured, run.space).winners:
            read_manifest(run.files.engines / winner.name)
    except (ExportError, StageError):
        return False
    return True


@dataclass(frozen=True)
class _Exporter:
    run: RunContext
    weights: SupernetWeights
    pool: ImagePool
    tensorrt: TensorRTTarget | None
    finetuning: Finetuning | None = None

    @property
    def settings(self) -> ExportSettings:
        return self.run.config.export

    @property
    def table_path(self) -> Path:
        return self.run.files.table(self.run.device)

    def export_all(self, chosen: Winners, max_replacements: int) -> Winners:
        """Export each winner, or the reserve that replaces it."""
        within = WithinBudget(
            self.run, "export", self._deployable, self._calibration, self._train_if_needed
        )
        tried = {} if self.finetuning is None else found_before_training(self.run, self.pool)

        def find(winner: Winner, reserves: Sequence[Winner], most: int) -> Winner:
            found = self._finished(winner)
            if found is None:
                folder, before = self.run.files.engines / winner.name, tried.get(winner.name)
                found = within.find(winner, reserves, most, folder, before)
                self._finish(found)
            return found

        exported = in_turn(chosen, self.run.device.name, max_replacements, find)
        tell_doubt(LatencyTable.load(self.table_path), "export", self.run.report)
        return exported

    def _finished(self, winner: Winner) -> Winner | None:
        """The finished export of a winner from before an interruption; None if there is none."""
        try:
            manifest = read_manifest(self.run.files.engines / winner.name)
            before = Winner.from_dict(manifest["winner"], self.run.space)
        except (ExportError, SpaceError):
            return None
        first = Winner.from_dict(before.replaced[0], self.run.space) if before.replaced else before
        return before if first.architecture == winner.architecture else None

    def _lacks_training(self, architecture: Architecture) -> bool:
        finetuning = self.finetuning
        return finetuning is not None and not is_trained(self.run, finetuning, architecture)

    def _train_if_needed(self, architecture: Architecture) -> bool:
        """Train a network that keeps its budgets: what is measured next is what is shipped."""
        if not self._lacks_training(architecture):
            return False
        assert self.finetuning is not None
        trained(self.run, self.finetuning, architecture)
        return True

    def _calibration(self, resolution: int) -> torch.Tensor:
        """Training images as inputs, for ranges of numbers."""
        if self.finetuning is not None:
            return self.finetuning.calibration(resolution)
        return self.pool.sample(resolution, 0, self.run.config.search.calibration_images)

    def _deployable(self, architecture: Architecture) -> Deployable:
        """The network to export; a whole model that is not trained yet has an untrained head."""
        search, finetuning = self.run.config.search, self.finetuning
        if finetuning is not None:
            if self._lacks_training(architecture):
                model = finetuning.subnet(architecture)
            else:
                model = trained(self.run, finetuning, architecture)
            most = self.settings.max_task_loss
            return make_whole_deployable(finetuning, model, architecture, most)
        return make_deployable(
            self.run.space,
            self.weights,
            self.pool,
            architecture,
            self.settings.output,
            calibration_images=search.calibration_images,
            batch_size=search.batch_size,
        )

    def _finish(self, winner: Winner) -> None:
        """Build and check the engines, then write the manifest."""
        folder = self.run.files.engines / winner.name
        deployable = self._deployable(winner.architecture)
        in_int8 = is_in_int8(self.run.device, self.tensorrt)
        quantization = self.settings.quantization if in_int8 else None
        notes = write_winner(
            folder,
            deployable,
            self.pool,
            winner,
            space=self.run.space,
            device=self.run.device,
            table=self.table_path,
            table_digest=table_digest(self.table_path, self.run.head),
            tensorrt=self.tensorrt,
            form={
                "batch": self.settings.batch,
                "quantization": quantization,
                "knn_neighbours": self.run.config.evaluation.knn_k,
            },
            calibration=self._calibration(winner.architecture.resolution),
        )
        text = f"{winner.name}: engines built and verified in {folder}"
        self.run.report(Event("export", text, detail=True))
        for note in notes:
            self.run.report(Event("export", f"{winner.name}: {note}"))


def time_export(
    run: RunContext, weights: SupernetWeights, pool: ImagePool, architecture: Architecture
) -> float:
    """Seconds to export, compile and verify one network here; nothing of it is kept.

    With a task it is a whole model with an untrained head, judged on all test images.

    Raises:
        UserError: It cannot be exported.
    """
    tensorrt, device = buildable(target_of(run), silent), run.device
    finetuning = None
    if run.config.finetune.task is not None:
        finetuning = replace(open_finetuning(run, pool, weights=False), weights=weights)
    exporter = _Exporter(run, weights, pool, tensorrt, finetuning)
    precision, resolution = precision_of(device), architecture.resolution
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgesearch-") as name:
        folder = Path(name)
        if finetuning is None:
            deployable = exporter._deployable(architecture)
        else:
            model = finetuning.subnet(architecture)
            deployable = make_whole_deployable(finetuning, model, architecture, max_loss=1.0)
        export_network(
            deployable.network,
            folder / ONNX_FILE,
            input_shape=(device.batch, run.space.in_channels, resolution, resolution),
            output_names=deployable.output_names,
        )
        calibration, method = exporter._calibration(resolution), exporter.settings.quantization
        write_in_format(folder, device.number_format(), calibration, device.batch, method)
        source = ONNX_FILE
        if tensorrt is not None:
            wanted = PRECISIONS[tensorrt.precision]
            source = write_for_tensorrt(folder, device, wanted, calibration, method)
        build_engines(
            folder,
            deployable.network,
            deployable.parity_images(pool, device.batch),
            tensorrt,
            precision,
            source,
            logits=deployable.metadata["output"] == "logits",
            task=deployable.task,
            post_processing=device.runtime_record.suppresses_boxes(device.provider),
        )
    return time.monotonic() - begun
