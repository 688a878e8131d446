"""Command validate: predicted against measured latency of held-out networks."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from devices.files import write_json
from edgesearch.errors import Interrupted, LatencyError
from edgesearch.events import Event
from edgesearch.inputs import read_json
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.load_table import load_table, tell_speed
from edgesearch.latency.prediction_error import PredictionError, plot_predictions, prediction_error
from edgesearch.latency.table import VALIDATION, keep_correction, measured_networks, steadiness_of
from edgesearch.latency.workloads import held_out_networks
from edgesearch.run.context import RunContext
from edgesearch.space import Architecture, SearchSpace
from edgesearch.stages.profile import open_workloads
from profilers import LatencyTable, Steadiness, build_table, open_meter

REPORT, PLOT = ".validation.json", ".validation.png"
VALIDATION_ANCHORS = 8
"""Twice the usual number: an error in joining sessions biases every network."""


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


def validate(run: RunContext) -> ValidateResult:
    """Measure whole networks that no correction was fitted to, and compare with predictions.

    Appends measurements and errors to the latency table; writes
    `latency/<device>-<identity>.validation.json` and `.png`. Networks that have all their rounds
    are not measured again; another seed draws other networks.
    """
    with run.writing():
        space, settings, accept = run.space, run.config.validation, run.config.profile.accept
        path = run.files.table(run.device)
        table = load_table(path, space, run.device, accept, "validate", run.report)
        fitted = {network.architecture for network in measured_networks(table, space)}
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
        model = LatencyModel.from_table(space, table)  # the table has new samples of its networks
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
        keep_correction(space, table, model.correction, validation=validation)
        result = ValidateResult(
            **asdict(errors),
            p95_mape=float(np.abs(predicted_p95_ms / measured_p95_ms - 1).mean()),
            held_out=held_out,
            steadiness=steadiness_of(table),
            networks=tuple(rows),
            table_path=path,
            report_path=path.with_suffix(REPORT),
            plot_path=path.with_suffix(PLOT),
        )
        figures = {
            **asdict(errors),
            "p95_mape": result.p95_mape,
            "held_out": held_out,
            "seed": settings.seed,
            "settled": result.steadiness.settled,
            "networks": [asdict(row) for row in rows],
        }
        write_json(result.report_path, figures)
        title = f"{space.name} on {run.device.name}: {len(rows)} networks, MAPE {errors.mape:.1%}"
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
    errors = {each.name: figures[each.name] for each in fields(PredictionError)}
    return ValidateResult(
        **errors,
        p95_mape=figures["p95_mape"],
        held_out=figures["held_out"],
        steadiness=steadiness_of(table),
        networks=networks,
        table_path=table.path,
        report_path=path,
        plot_path=table.path.with_suffix(PLOT),
    )


def _measure(run: RunContext, table: LatencyTable, chosen: Sequence[Architecture]) -> LatencyTable:
    settings = run.config.profile
    with contextlib.closing(open_meter(run.device)) as meter, open_workloads(run, meter) as files:
        return build_table(
            table.path,
            spec=run.device,
            workloads=files.networks(chosen, VALIDATION),
            meter=meter,
            config=settings.measure(run.config.seed),
            anchors=files.anchors(table, VALIDATION_ANCHORS),
            accept=settings.accept,
            retry_errors=settings.retry_errors,
            on_progress=lambda done, total: run.report(
                Event("validate", "rounds measured", done, total)
            ),
        )


def _compare(
    model: LatencyModel, table: LatencyTable, chosen: Sequence[Architecture]
) -> list[ValidatedNetwork]:
    measured = {
        network.architecture: network
        for network in measured_networks(table, model.space, VALIDATION)
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
            "Choose another runtime or precision.",
        )
    return sorted(rows, key=lambda row: row.measured_ms)
