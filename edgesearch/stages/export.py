"""Stage export: from winners to engines that were checked and measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from devices import DeviceSpec
from devices.files import sha256_of
from edgesearch.data.image_pool import ImagePool, ImageSource
from edgesearch.errors import ExportError, Interrupted
from edgesearch.events import Event, Report, silent
from edgesearch.export.deployable import (
    Deployable,
    is_in_int8,
    make_deployable,
    write_in_format,
    write_winner,
)
from edgesearch.export.engines import ONNX_FILE, TensorRTTarget
from edgesearch.export.exportable import buildable, check_batch, check_images, check_target
from edgesearch.export.exported import (
    ExportResult,
    architectures,
    export_result,
    intact,
    nothing_left,
)
from edgesearch.export.manifest import MANIFEST, read_manifest
from edgesearch.formats.onnx_export import export_network
from edgesearch.latency.budgets import (
    broken_budgets,
    describe_broken,
    fits_as_measured,
    fits_as_predicted,
    have_same_budgets,
    measured_figures,
    predicted_figures,
)
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.table import WINNER, about_network, current_correction, keep_correction
from edgesearch.latency.tell_table import tell_doubt, tell_speed
from edgesearch.latency.workloads import WorkloadFiles
from edgesearch.run.layout import Layout
from edgesearch.run.output_folder import digest_of, output_folder
from edgesearch.run.stage import Stage, prefixed
from edgesearch.search.winners import Winner, Winners, read_winner
from edgesearch.space import Architecture, SearchSpace
from edgesearch.stages.profile import load_table, winner_key
from edgesearch.stages.search import SearchImages, check_searched_for
from edgesearch.supernet.weights import SupernetWeights
from profilers import LatencyTable, MeasureConfig, Meter, Workload, build_table, open_meter

WINNER_ROUNDS = (4, 16)
"""A winner is measured in so many times the rounds of a block: on it depends what is shipped. One
whose median is over the budget is measured on, up to the second figure: the machine may have been
busy, or the interval too wide to tell."""
SECONDS_BEFORE_SECOND_LOOK = 1.0


def export(
    *,
    space: SearchSpace,
    device: DeviceSpec,
    images: ImageSource,
    output_dir: Path,
    looked_at: SearchImages,
    measure: MeasureConfig,
    output: str = "features",
    batch: str = "fixed",
    quantization: str = "minmax",
    max_replacements: int = 5,
    tensorrt: TensorRTTarget | None = None,
    seed: int = 0,
    cache_dir: Path | None = None,
    accept: Collection[str] = (),
    report: Report = silent,
) -> ExportResult:
    """Export the winners, check them, measure them, and replace those that are too slow.

    Args:
        space: The search space.
        device: Where the winners are measured.
        images: The images of the search; some are used for checking.
        output_dir: Has table, supernet and search; gets `engines/`, rewrites `winners.json`.
        looked_at: As in the search, so that winners are calibrated on the same images.
        measure: Rounds, runs and bounds of the measuring.
        output: "features", "logits" (needs labelled images), "embeddings" or "stages".
        batch: "fixed", that of the device, or "dynamic", which TensorRT's runtimes do not take.
        quantization: How ranges of eight bits are chosen: "minmax", "entropy" or "percentile".
        max_replacements: Reserves that may be tried in all.
        tensorrt: What TensorRT engines are built for; None builds none.
        seed: That of the search.
        cache_dir: Keeps exported blocks; the user's cache folder if None.
        accept: Fields in which the table may differ from the device; see `load_table`.
        report: Is told what happens.

    Raises:
        Interrupted: Stopped by the user; the same call goes on.
        ExportError: A file differs from the subnet, or no reserve is fast enough.
        UserError: Something is missing or does not fit.
    """
    check_batch(device, batch)
    form = {"output": output, "batch": batch, "quantization": quantization}
    with output_folder(output_dir):
        tensorrt = buildable(tensorrt, report)
        layout = Layout(output_dir)
        chosen = Winners.load(layout.chosen, space)
        load_table(layout.table(device), space, device, accept, "export", report)
        check_searched_for(device, layout)
        pool = ImagePool(images, space.in_channels, seed)
        stage = Stage(
            "export",
            layout.engines,
            {
                "device": device.measured_fields,
                "seed": seed,
                **prefixed("data", {**images.to_dict(), "licence": images.licence}),
                **prefixed("search", asdict(looked_at)),
                **prefixed("export", form),
                "export.max_replacements": max_replacements,
                "export.tensorrt": None if tensorrt is None else asdict(tensorrt),
            },
            {
                "the supernet's weights": digest_of(layout.weights, "pretrain"),
                "the winners of the search": sha256_of(layout.chosen),
                "the set of images": pool.digest,
            },
        )
        if stage.is_finished() and intact(layout, space):
            report(Event("export", stage.begin()[1]))
            return export_result(layout, space, skipped=True)
        check_target(tensorrt)  # and all else before finished engines may be set aside
        ranges = looked_at.calibration_images if is_in_int8(device, tensorrt) else None
        check_images(pool, chosen.winners, device.batch, ranges, logits=output == "logits")
        exporter = _Exporter(
            space=space,
            device=device,
            weights=SupernetWeights.load(layout.weights, space),
            pool=pool,
            layout=layout,
            looked_at=looked_at,
            measure=measure,
            **form,
            tensorrt=tensorrt,
            cache_dir=cache_dir,
            accept=accept,
            report=report,
        )
        _export_all(exporter, chosen, max_replacements, stage)
        return export_result(layout, space, skipped=False)


def _export_all(exporter: _Exporter, chosen: Winners, max_replacements: int, stage: Stage) -> None:
    finished, message = stage.begin()
    if finished:
        stage.reopen()
        message = "files of a winner are missing or changed: done again"
    if message:
        exporter.report(Event("export", message))
    try:
        measured = exporter.export_all(chosen, max_replacements)
    except KeyboardInterrupt:
        raise Interrupted("export stopped; finished winners are kept") from None
    path = exporter.layout.measured
    measured.save(path)
    stage.finish([*(f"{winner.name}/{MANIFEST}" for winner in measured.winners), path.name])


@dataclass(frozen=True)
class _Exporter:
    """What every winner's export needs; see `export`."""

    space: SearchSpace
    device: DeviceSpec
    weights: SupernetWeights
    pool: ImagePool
    layout: Layout
    looked_at: SearchImages
    measure: MeasureConfig
    output: str
    batch: str
    quantization: str
    tensorrt: TensorRTTarget | None
    cache_dir: Path | None
    accept: Collection[str]
    report: Report

    def export_all(self, chosen: Winners, max_replacements: int) -> Winners:
        """Export each winner, or the reserve that takes its place."""
        reserves = list(chosen.reserves)
        exported = []
        for winner in chosen.winners:
            before = self._finished(winner)
            if before is not None:
                used = [before, *map(read_winner, before.replaced)]
                used_up = architectures(used)
                reserves = [
                    reserve
                    for reserve in reserves
                    if reserve.architecture not in used_up or not self._alike(reserve, winner)
                ]
                max_replacements -= len(before.replaced)
                exported.append(before)
                continue
            fitting, tries = self._within_budget(winner, reserves, max_replacements)
            max_replacements -= tries
            exported.append(self._finish(fitting))
        tell_doubt(LatencyTable.load(self.layout.table(self.device)), "export", self.report)
        return replace(chosen, winners=tuple(exported), reserves=tuple(reserves))

    def _finished(self, winner: Winner) -> Winner | None:
        """What was exported for a winner before this stage was stopped; None if it was not."""
        try:
            before = read_winner(read_manifest(self.layout.engines / winner.name)["winner"])
        except ExportError:
            return None
        first = read_winner(before.replaced[0]) if before.replaced else before
        return before if first.architecture == winner.architecture else None

    def _within_budget(
        self, winner: Winner, reserves: list[Winner], max_replacements: int
    ) -> tuple[Winner, int]:
        """The winner as measured, or the first reserve that keeps the budget; and the tries."""
        replaced: list[dict[str, Any]] = []
        candidate = winner
        while True:
            measured = self._measured(replace(candidate, name=winner.name))
            figures = measured.latency_ms[self.device.name]
            if not broken_budgets(figures):
                return replace(measured, replaced=tuple(replaced)), len(replaced)
            replaced.append({**measured.to_dict(), "name": candidate.name})
            next_step = "the correction is updated and a reserve takes its place"
            text = f"{winner.name}: {describe_broken(figures)}; {next_step}"
            self.report(Event("export", text))
            alike = [reserve for reserve in reserves if self._alike(reserve, winner)]
            fitting = self._feasible_reserves(self._updated_model(), alike)
            following = next(fitting, None) if len(replaced) <= max_replacements else None
            if following is None:
                raise nothing_left(winner, replaced, self.device.name)
            reserves.remove(next(r for r in reserves if r.name == following.name))
            candidate = following

    def _alike(self, reserve: Winner, winner: Winner) -> bool:
        """Whether a reserve is for the winner's budget."""
        name = self.device.name
        return have_same_budgets(reserve.latency_ms[name], winner.latency_ms[name])

    def _feasible_reserves(self, model: LatencyModel, reserves: list[Winner]) -> Iterator[Winner]:
        """Reserves predicted within the budgets now, best score first, with that prediction."""
        for reserve in reserves:
            prediction = predicted_figures(model.predict(reserve.architecture))
            predicted = reserve.with_latency(self.device.name, **prediction)
            if fits_as_predicted(predicted.latency_ms[self.device.name]):
                yield predicted

    def _measured(self, winner: Winner) -> Winner:
        """Export the network and time it on the device."""
        folder = self.layout.engines / winner.name
        deployable = self._deployable(winner.architecture)
        resolution = winner.architecture.resolution
        export_network(
            deployable.network,
            folder / ONNX_FILE,
            input_shape=(self.device.batch, self.space.in_channels, resolution, resolution),
            output_names=deployable.output_names,
            open_batch=self.batch == "dynamic",
            metadata=deployable.metadata,
        )
        path = self.layout.table(self.device)
        with (
            contextlib.closing(open_meter(self.device)) as meter,
            WorkloadFiles(
                self.space,
                self.device,
                meter.fingerprints[0],
                self.layout.networks,
                self.cache_dir,
                self.report,
            ) as files,
        ):
            onnx_path = write_in_format(
                folder,
                files.number_format,
                self._calibration(resolution),
                self.device.batch,
                self.quantization,
            )
            # A key of its own each time: what a busy machine did to an export does not stay.
            session = LatencyTable.load(path).last_session + 1
            workload = Workload(
                key=winner_key(winner.architecture, self.output, session),
                onnx_path=onnx_path,
                kind=WINNER,
                about=about_network(self.space, winner.architecture),
            )
            return self._time(winner, workload, meter, files)

    def _time(
        self, winner: Winner, workload: Workload, meter: Meter, files: WorkloadFiles
    ) -> Winner:
        """Measure a winner; a second time and longer if it seems to be over a budget."""
        path = self.layout.table(self.device)
        anchors = files.anchors(LatencyTable.load(path))
        for factor in WINNER_ROUNDS:
            if factor > WINNER_ROUNDS[0]:
                time.sleep(SECONDS_BEFORE_SECOND_LOOK)
            table = build_table(
                path,
                spec=self.device,
                workloads=[workload],
                meter=meter,
                config=replace(self.measure, rounds=factor * self.measure.rounds, max_rounds=None),
                anchors=anchors,
                accept=self.accept,
            )
            figures = measured_figures(table, workload.key)
            measured = winner.with_latency(self.device.name, **figures)
            if fits_as_measured(measured.latency_ms[self.device.name]):
                break
        if self.accept:
            tell_speed(table, "export", self.report)
        return measured

    def _calibration(self, resolution: int) -> torch.Tensor:
        return self.pool.sample(resolution, 0, self.looked_at.calibration_images)

    @property
    def _quantization(self) -> str | None:
        return self.quantization if is_in_int8(self.device, self.tensorrt) else None

    def _deployable(self, architecture: Architecture) -> Deployable:
        return make_deployable(
            self.space, self.weights, self.pool, architecture, self.looked_at, self.output
        )

    def _updated_model(self) -> LatencyModel:
        """Fit the correction again, now with the measured winners among its networks."""
        table = load_table(self.layout.table(self.device), self.space, self.device, self.accept)
        model = LatencyModel.from_table(self.space, table)
        if model.correction != current_correction(self.space, table):
            keep_correction(self.space, table, model.correction)
        return model

    def _finish(self, winner: Winner) -> Winner:
        """Build and check the engines, then write the manifest."""
        folder = self.layout.engines / winner.name
        notes = write_winner(
            folder,
            self._deployable(winner.architecture),
            self.pool,
            winner,
            space=self.space,
            device=self.device,
            table=self.layout.table(self.device),
            tensorrt=self.tensorrt,
            form={"batch": self.batch, "quantization": self._quantization},
            calibration=self._calibration(winner.architecture.resolution),
        )
        self.report(Event("export", f"{winner.name}: engines built and checked in {folder}"))
        for note in notes:
            self.report(Event("export", f"{winner.name}: {note}"))
        return winner
