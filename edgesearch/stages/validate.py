"""Command validate: predicted against measured latency, on networks the table has not seen."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from devices import DeviceSpec
from edgesearch.errors import Interrupted, LatencyError
from edgesearch.events import Event, Report, silent
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.prediction_error import PredictionError, prediction_error
from edgesearch.latency.table import VALIDATION, keep_correction, measured_networks, steadiness_of
from edgesearch.latency.tell_table import tell_speed
from edgesearch.latency.workloads import WorkloadFiles, held_out_networks
from edgesearch.run.layout import Layout
from edgesearch.run.output_folder import output_folder, write_json
from edgesearch.search.plots import plot_predictions
from edgesearch.space import Architecture, SearchSpace
from edgesearch.stages.profile import load_table
from profilers import LatencyTable, MeasureConfig, Steadiness, build_table, open_meter

VALIDATION_ANCHORS = 8
"""Twice those of other sessions: an error in joining the sessions is an error of each network."""


@dataclass(frozen=True)
class ValidatedNetwork:
    """A network that was predicted and measured.

    Attributes:
        architecture: Its name.
        predicted_ms: Predicted median latency.
        measured_ms: Measured median latency.
        predicted_p95_ms: Predicted 95th percentile.
        measured_p95_ms: Measured 95th percentile.
    """

    architecture: str
    predicted_ms: float
    measured_ms: float
    predicted_p95_ms: float
    measured_p95_ms: float


@dataclass(frozen=True)
class ValidateResult(PredictionError):
    """The errors of the medians, and where they come from.

    Attributes:
        p95_mape: Mean absolute error of the 95th percentiles.
        steadiness: How steady the machine was, and whether it settled.
        networks: The networks, fastest first.
        table_path: The latency table, which holds what was measured.
        report_path: The same figures as JSON.
        plot_path: Predicted against measured, as a picture.
    """

    p95_mape: float
    steadiness: Steadiness
    networks: tuple[ValidatedNetwork, ...]
    table_path: Path
    report_path: Path
    plot_path: Path


def validate(
    *,
    space: SearchSpace,
    device: DeviceSpec,
    output_dir: Path,
    measure: MeasureConfig,
    networks: int = 24,
    seed: int = 0,
    cache_dir: Path | None = None,
    accept: Collection[str] = (),
    retry_errors: bool = False,
    report: Report = silent,
) -> ValidateResult:
    """Measure whole networks that no prediction was fitted to, and compare.

    Networks that have all their rounds are not measured again: another seed draws others.

    Args:
        space: The search space.
        device: Its table has to have been measured.
        output_dir: Has the table, which gets the measurements and the errors; gets
            `latency/<device>-<identity>.validation.json` and `.png`.
        measure: Rounds, runs and bounds of the measuring.
        networks: How many networks to draw.
        seed: Which networks to draw.
        cache_dir: Keeps exported blocks; the user's cache folder if None.
        accept: Fields in which the table may differ from the device; see `load_table`.
        retry_errors: Whether to try again networks that could not run before.
        report: Is told what happens.

    Raises:
        Interrupted: Stopped by the user; the same call goes on.
        UserError: Something is missing or does not fit.
    """
    with output_folder(output_dir):
        layout = Layout(output_dir)
        path = layout.table(device)
        table = load_table(path, space, device, accept, "validate", report)
        fitted = {network.architecture for network in measured_networks(table, space.space_hash)}
        chosen = held_out_networks(space, networks, seed, fitted)
        try:
            options = dict(config=measure, accept=accept, retry_errors=retry_errors)
            table = _measure(space, device, layout, table, chosen, cache_dir, report, **options)
        except KeyboardInterrupt:
            raise Interrupted(f"validation stopped; what was measured is in {path}") from None
        if accept:
            tell_speed(table, "validate", report)
        model = LatencyModel.from_table(space, table)  # the networks were measured again beside
        rows = _compare(model, table, chosen)
        if len(rows) < len(chosen):
            left_out = f"{len(chosen) - len(rows)} networks cannot run and are left out"
            report(Event("validate", left_out))
        errors = prediction_error(
            np.array([row.predicted_ms for row in rows]),
            np.array([row.measured_ms for row in rows]),
        )
        keep_correction(space, table, model.correction, validation=errors.to_dict())
        result = ValidateResult(
            **asdict(errors),
            p95_mape=float(
                np.mean([abs(r.predicted_p95_ms / r.measured_p95_ms - 1) for r in rows])
            ),
            steadiness=steadiness_of(table),
            networks=tuple(rows),
            table_path=path,
            report_path=path.with_suffix(".validation.json"),
            plot_path=path.with_suffix(".validation.png"),
        )
        _write_report(result, errors, seed)
        plot_predictions(
            result.plot_path,
            [row.predicted_ms for row in rows],
            [row.measured_ms for row in rows],
            f"{space.name} on {device.name}: {len(rows)} networks, MAPE {errors.mape:.1%}",
        )
        return result


def _write_report(result: ValidateResult, errors: PredictionError, seed: int) -> None:
    figures = {
        **errors.to_dict(),
        "p95_mape": result.p95_mape,
        "seed": seed,
        "settled": result.steadiness.settled,
        "networks": [asdict(row) for row in result.networks],
    }
    write_json(result.report_path, figures)


def _measure(
    space: SearchSpace,
    device: DeviceSpec,
    layout: Layout,
    table: LatencyTable,
    chosen: Sequence[Architecture],
    cache_dir: Path | None,
    report: Report,
    **options: Any,
) -> LatencyTable:
    """Measure networks; `options` are arguments of `build_table`."""
    with (
        contextlib.closing(open_meter(device)) as meter,
        WorkloadFiles(
            space, device, meter.fingerprints[0], layout.networks, cache_dir, report
        ) as files,
    ):
        return build_table(
            layout.table(device),
            spec=device,
            workloads=files.networks(chosen, VALIDATION),
            meter=meter,
            anchors=files.anchors(table, VALIDATION_ANCHORS),
            **options,
            on_progress=lambda done, total: report(
                Event("validate", "rounds measured", done, total)
            ),
        )


def _compare(
    model: LatencyModel, table: LatencyTable, chosen: Sequence[Architecture]
) -> list[ValidatedNetwork]:
    measured = {
        network.architecture: network
        for network in measured_networks(table, model.space.space_hash, VALIDATION)
    }
    rows = []
    for architecture in chosen:
        predicted = model.predict(architecture)
        if architecture not in measured or not np.isfinite(predicted.median_ms):
            continue  # the runtime cannot run it, or a block of it alone
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
