"""Command validate: predicted against measured latency of held-out networks."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from devices import OnnxRuntime
from devices.files import write_json
from edgesearch.errors import Interrupted, LatencyError, UserError
from edgesearch.events import Event
from edgesearch.export.kit_program import LEAST_SCORE, boxes_of
from edgesearch.formats.onnx_files import save_model
from edgesearch.inputs import read_json
from edgesearch.latency.latency_model import LatencyModel, about_latencies
from edgesearch.latency.load_table import load_table, tell_speed
from edgesearch.latency.prediction_error import PredictionError, plot_predictions, prediction_error
from edgesearch.latency.table import (
    VALIDATION,
    WITH_HEAD_VALIDATION,
    keep_correction,
    keep_head,
    measured_networks,
    steadiness_of,
)
from edgesearch.latency.workloads import held_out_networks, network_key, random_model
from edgesearch.run.context import RunContext
from edgesearch.space import Architecture, SearchSpace
from edgesearch.stages.finetune import open_finetuning
from edgesearch.stages.profile import open_workloads
from edgesearch.tasks.finetuning import WEIGHTS, Finetuning
from edgesearch.tasks.head_costs import TaskHead
from edgesearch.tasks.known_tasks import TASKS
from edgesearch.tasks.model import TaskModel, outputs_of
from profilers import LatencyTable, Steadiness, build_table, open_meter

REPORT, PLOT = ".validation.json", ".validation.png"
POST_IMAGES, POST_REPEATS = 16, 3
"""Images that post-processing is timed on, and how often on each; the fastest counts."""
VALIDATION_ANCHORS = 8
"""Twice the usual number: an error in joining sessions biases every network."""


@dataclass(frozen=True)
class PostProcessing:
    """Time from a detector's outputs to its boxes, on this machine.

    Attributes:
        in_graph: Whether a graph of the runtime does it, as `export` writes it for the device, or
            the kit in numpy.
        images: Number of images.
        trained: Whether the outputs are a trained network's on test images. Otherwise the boxes are
            those of an untrained head, with random scores that make every box a candidate: no
            trained network needs as long.
    """

    median_ms: float
    p95_ms: float
    images: int
    trained: bool
    in_graph: bool


@dataclass(frozen=True)
class ValidatedNetwork:
    """Predicted and measured latency of a network."""

    architecture: str
    predicted_ms: float
    measured_ms: float
    predicted_p95_ms: float
    measured_p95_ms: float


@dataclass(frozen=True)
class ValidateResult(PredictionError):
    """Errors of the predicted medians, and the networks that they were computed on.

    Attributes:
        p95_mape: Mean absolute relative error of the 95th percentiles.
        latency_of: What was predicted and measured: "backbone", or "whole model" with its head.
        post_processing: What a detector needs beside its network; None for other tasks.
        held_out: Whether no correction was fitted to the networks. In a tiny space, it is fitted to
            all of them: they are loaded and measured again.
    """

    p95_mape: float
    held_out: bool
    steadiness: Steadiness
    networks: tuple[ValidatedNetwork, ...]
    table_path: Path
    report_path: Path
    plot_path: Path
    latency_of: str
    post_processing: PostProcessing | None


def validate(run: RunContext) -> ValidateResult:
    """Measure whole networks that no correction was fitted to, and compare with predictions.

    With a task (`finetune.task`) they are whole models with its head, without it backbones.
    Appends measurements and errors to the latency table; writes
    `latency/<device>-<identity>.validation.json` and `.png`. Networks that have all their rounds
    are not measured again; another seed draws other networks.
    """
    with run.writing():
        space, settings, accept = run.space, run.config.validation, run.config.profile.accept
        head = run.head
        path = run.files.table(run.device)
        table = load_table(path, space, run.device, accept, "validate", run.report, head=head)
        fitted = {network.architecture for network in measured_networks(table, space, head=head)}
        if head is not None:  # backbones are fitted to these
            fitted |= {network.architecture for network in measured_networks(table, space)}
        chosen = held_out_networks(space, settings.networks, settings.seed, fitted)
        held_out = bool(chosen)
        chosen = chosen or sorted(fitted, key=space.index)[: settings.networks]
        if len(chosen) < settings.networks or not held_out:
            run.teller("validate")(_too_small(space, len(chosen), held_out))
        if not run.may_write:
            return _reported(run, table, chosen)
        try:
            table = _measure(run, table, chosen)
        except KeyboardInterrupt:
            raise Interrupted(f"validation stopped; what was measured is in {path}") from None
        if accept:
            tell_speed(table, "validate", run.report)
        # The table has new samples of its networks.
        model = LatencyModel.from_table(space, table, head=head)
        rows = _compare(model, table, chosen)
        if len(rows) < len(chosen):
            run.teller("validate")(
                f"{len(chosen) - len(rows)} networks cannot run and are excluded"
            )
        predicted_ms, measured_ms, predicted_p95_ms, measured_p95_ms = (
            np.array([getattr(row, name) for row in rows])
            for name in ("predicted_ms", "measured_ms", "predicted_p95_ms", "measured_p95_ms")
        )
        errors = prediction_error(predicted_ms, measured_ms)
        validation = {**asdict(errors), "held_out": held_out}
        if head is None or model.fit is None:
            keep_correction(space, table, model.correction, validation=validation)
        else:
            keep_correction(space, table, model.correction)
            keep_head(space, table, head, model.fit, validation)
        post_processing = _post_processing(run, chosen[0])
        result = ValidateResult(
            **asdict(errors),
            p95_mape=float(np.abs(predicted_p95_ms / measured_p95_ms - 1).mean()),
            held_out=held_out,
            steadiness=steadiness_of(table),
            networks=tuple(rows),
            table_path=path,
            report_path=path.with_suffix(REPORT),
            plot_path=path.with_suffix(PLOT),
            latency_of=model.about,
            post_processing=post_processing,
        )
        figures = {
            **asdict(errors),
            "p95_mape": result.p95_mape,
            "held_out": held_out,
            "latency_of": model.about,
            "post_processing": None if post_processing is None else asdict(post_processing),
            "seed": settings.seed,
            "settled": result.steadiness.settled,
            "networks": [asdict(row) for row in rows],
        }
        write_json(result.report_path, figures)
        of = "networks" if head is None else f"whole models, {head.head}"
        title = f"{space.name} on {run.device.name}: {len(rows)} {of}, MAPE {errors.mape:.1%}"
        plot_predictions(result.plot_path, predicted_ms, measured_ms, title)
        return result


def _too_small(space: SearchSpace, count: int, held_out: bool) -> str:
    if held_out:
        return f"{space.name!r} has no more than {count} networks to hold out: all of them are used"
    return (
        f"predictions are fitted to all networks of {space.name!r}, none can be held out: {count} "
        "are loaded and measured again"
    )


def _reported(
    run: RunContext, table: LatencyTable, chosen: Sequence[Architecture]
) -> ValidateResult:
    """The result of a validation of these networks; raises why there is no lock without one."""
    path = table.path.with_suffix(REPORT)
    if not path.exists():
        run.require_lock()
    figures = read_json(path, "validate")
    networks = tuple(ValidatedNetwork(**network) for network in figures["networks"])
    if {network.architecture for network in networks} != {str(each) for each in chosen}:
        run.require_lock()
    if figures["latency_of"] != about_latencies(run.head):
        run.require_lock()
    errors = {each.name: figures[each.name] for each in fields(PredictionError)}
    post = figures["post_processing"]
    return ValidateResult(
        **errors,
        p95_mape=figures["p95_mape"],
        held_out=figures["held_out"],
        steadiness=steadiness_of(table),
        networks=networks,
        table_path=table.path,
        report_path=path,
        plot_path=table.path.with_suffix(PLOT),
        latency_of=figures["latency_of"],
        post_processing=None if post is None else PostProcessing(**post),
    )


def _measure(run: RunContext, table: LatencyTable, chosen: Sequence[Architecture]) -> LatencyTable:
    settings, head = run.config.profile, run.head
    with contextlib.closing(open_meter(run.device)) as meter, open_workloads(run, meter) as files:
        if head is None:
            workloads = files.networks(chosen, VALIDATION)
        else:  # exporting a whole model takes seconds
            workloads = files.with_head(_lacking(run, table, chosen), WITH_HEAD_VALIDATION, head)
        return build_table(
            table.path,
            spec=run.device,
            workloads=workloads,
            meter=meter,
            config=settings.measure(run.config.seed),
            anchors=files.anchors(table, VALIDATION_ANCHORS),
            accept=settings.accept,
            retry_errors=settings.retry_errors,
            on_progress=lambda done, total: run.report(
                Event("validate", "rounds measured", done, total)
            ),
        )


def _lacking(
    run: RunContext, table: LatencyTable, chosen: Sequence[Architecture]
) -> list[Architecture]:
    """Those whose whole models a table does not know well enough."""
    settings, kind = run.config.profile, WITH_HEAD_VALIDATION
    measure, found = settings.measure(run.config.seed), []
    for architecture in chosen:
        key = network_key(kind, run.space, architecture, run.head)
        failed = key in table.errors
        if settings.retry_errors if failed else measure.lacks_rounds(table.history(key)):
            found.append(architecture)
    return found


def _compare(
    model: LatencyModel, table: LatencyTable, chosen: Sequence[Architecture]
) -> list[ValidatedNetwork]:
    kind = VALIDATION if model.head is None else WITH_HEAD_VALIDATION
    measured = {
        network.architecture: network
        for network in measured_networks(table, model.space, kind, head=model.head)
    }
    rows = []
    for architecture in chosen:
        predicted = model.predict(architecture)
        if architecture not in measured or not np.isfinite(predicted.median_ms):
            continue  # the runtime cannot run it, or one of its blocks alone
        found = measured[architecture]
        rows.append(
            ValidatedNetwork(
                str(architecture),
                predicted.median_ms,
                found.median_ms,
                predicted.p95_ms,
                found.p95_ms,
            )
        )
    if not rows:
        raise LatencyError(
            f"at least one of {len(chosen)} networks that the runtime can run",
            f"none; the errors are in {table.path}",
            "If the cause has passed, run the same command with profile.retry_errors=true; "
            "otherwise choose another runtime or precision.",
        )
    return sorted(rows, key=lambda row: row.measured_ms)


def _post_processing(run: RunContext, architecture: Architecture) -> PostProcessing | None:
    """The post-processing of a detector: a trained one of the run, or an untrained architecture."""
    import torch

    head = run.head
    if head is None or TASKS[head.task].in_graph is None:
        return None
    trained = _trained(run)
    if trained is not None:
        finetuning, model = trained
        images = finetuning.fitted("test", model.resolution).images[:POST_IMAGES]
        inputs = finetuning.task(model.resolution).preprocess.normalise(images)
    else:
        model = random_model(run.space, architecture, head)
        size, generator = model.resolution, torch.Generator().manual_seed(0)
        shape = (POST_IMAGES, run.space.in_channels, size, size)
        inputs = torch.randn(shape, generator=generator)
    with torch.no_grad():
        found = dict(zip(model.output_names, outputs_of(model, inputs), strict=True))
    outputs = {name: each.numpy() for name, each in found.items()}
    if trained is None:
        shape = outputs["scores"].shape
        outputs["scores"] = np.random.default_rng(0).uniform(LEAST_SCORE, 1, shape).astype("f4")
    in_graph = run.device.runtime_record.suppresses_boxes(run.device.provider)
    times_ms = []
    with _suppressing(run, head, model.resolution, outputs, in_graph) as suppress:
        for number in range(len(inputs)):
            of_image = {name: each[number : number + 1] for name, each in outputs.items()}
            fastest = math.inf
            for _ in range(POST_REPEATS):
                begun = time.perf_counter()
                suppress(of_image)
                fastest = min(fastest, time.perf_counter() - begun)
            times_ms.append(1000 * fastest)
    return PostProcessing(
        median_ms=float(np.median(times_ms)),
        p95_ms=float(np.percentile(times_ms, 95)),
        images=len(times_ms),
        trained=trained is not None,
        in_graph=in_graph,
    )


Suppress = Callable[[Mapping[str, np.ndarray]], object]
"""From the outputs (1, …) of a detector to its boxes."""


@contextlib.contextmanager
def _suppressing(
    run: RunContext,
    head: TaskHead,
    resolution: int,
    outputs: Mapping[str, np.ndarray],
    in_graph: bool,
) -> Iterator[Suppress]:
    """Post-processing of outputs of these shapes, by a graph or as the kit does it."""
    if not in_graph:
        rule = {"resolution": resolution, "fit": "stretch"}
        labels = [str(number) for number in range(head.classes)]
        yield lambda found: boxes_of(
            {name: each[0] for name, each in found.items()}, labels, rule, resolution, resolution
        )
        return
    shapes = {name: (1, *each.shape[1:]) for name, each in outputs.items()}
    with tempfile.TemporaryDirectory(prefix="edgesearch-") as folder:
        path = Path(folder) / "post_processing.onnx"
        save_model(TASKS[head.task].post_processing().alone(shapes), path)
        with contextlib.closing(OnnxRuntime(run.device.threads).load(path)) as session:
            yield lambda found: session.run({f"all_{name}": each for name, each in found.items()})


def _trained(run: RunContext) -> tuple[Finetuning, TaskModel] | None:
    """A network that the run has fine-tuned for its task; None without one."""
    for path in sorted(run.files.finetune.glob(f"*/{WEIGHTS}")):
        with contextlib.suppress(UserError):  # of another space, head or task
            architecture = run.space.from_text(path.parent.name)
            finetuning = open_finetuning(run, weights=False)
            return finetuning, finetuning.load(path.parent, architecture)
    return None
