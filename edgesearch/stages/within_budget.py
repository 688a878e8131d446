"""Winners are measured on the device; reserves take the places of those that are too slow."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edgesearch.errors import ExportError
from edgesearch.events import Event
from edgesearch.export.deployable import Deployable, write_in_format
from edgesearch.export.engines import ONNX_FILE
from edgesearch.formats.onnx_export import export_network
from edgesearch.latency.budgets import (
    broken_budgets,
    describe_broken,
    describe_budgets,
    fits_as_measured,
    fits_as_predicted,
    has_budgets,
    have_same_budgets,
    measured_figures,
    predicted_figures,
)
from edgesearch.latency.latency_model import LatencyModel, other_heads
from edgesearch.latency.load_table import load_table, tell_speed
from edgesearch.latency.table import (
    WHOLE,
    WINNER,
    about_network,
    current_correction,
    keep_correction,
    keep_head,
)
from edgesearch.latency.workloads import WorkloadFiles, network_key
from edgesearch.run.context import RunContext
from edgesearch.search.winners import Winner, Winners
from edgesearch.space import Architecture
from edgesearch.stages.profile import open_workloads
from profilers import LatencyTable, MeasureConfig, Meter, Workload, build_table, open_meter

WINNER_ROUNDS = (4, 16)
"""Rounds of a winner, as multiples of those of a block. The second applies if it seems over budget:
the machine may have been busy, or the interval too wide."""
SECONDS_BEFORE_SECOND_LOOK = 1.0


def measure_winner(run: RunContext, factor: int = WINNER_ROUNDS[0]) -> MeasureConfig:
    """How a winner is measured: `factor` times the rounds of a block, up to any number."""
    measure = run.config.profile.measure(run.config.seed)
    return replace(measure, rounds=factor * measure.rounds, max_rounds=None)


@dataclass(frozen=True)
class WithinBudget:
    """Finds, for each winner of a search, the first candidate that keeps its budgets as measured.

    Attributes:
        run: The run; its table gets the measurements, and a correction that has learnt from them.
        stage: Name of the stage, for what it tells.
        deployable: Makes the network of an architecture, with a task the whole model.
        calibration: Training images as inputs of a resolution, for ranges of numbers.
        complete: Called with an architecture that keeps its budgets; says whether it has changed
            the network, which is then measured again.
    """

    run: RunContext
    stage: str
    deployable: Callable[[Architecture], Deployable]
    calibration: Callable[[int], torch.Tensor]
    complete: Callable[[Architecture], bool] = lambda architecture: False

    def find(
        self,
        winner: Winner,
        reserves: Sequence[Winner],
        most: int,
        folder: Path,
        tried: Winner | None = None,
    ) -> Winner:
        """The measured winner, or the first reserve within its budgets, under the winner's name.

        Args:
            winner: As chosen by the search.
            reserves: Those that may take its place; see `without`.
            most: How many networks may be replaced.
            folder: Gets the ONNX files of what is measured.
            tried: What an earlier call found, where to begin.

        Raises:
            ExportError: No reserve is left, or a network cannot run on the device.
        """
        candidate, replaced = winner, list[dict[str, Any]]()
        left = [each for each in reserves if _same_budgets(each, winner, self.run.device.name)]
        if tried is not None:
            names = {each.architecture: each.name for each in [*left, winner]}
            candidate = replace(tried, name=names.get(tried.architecture, winner.name))
            replaced = list(tried.replaced)
            left = without(left, winner, tried, self.run.device.name)
        while True:
            measured = self._measured(replace(candidate, name=winner.name), folder)
            figures = measured.latency_ms[self.run.device.name]
            if not broken_budgets(figures) and self.complete(candidate.architecture):
                measured = self._measured(replace(candidate, name=winner.name), folder)
                figures = measured.latency_ms[self.run.device.name]
            if not broken_budgets(figures):
                return replace(measured, replaced=tuple(replaced))
            replaced.append({**measured.to_dict(), "name": candidate.name})
            next_step = "updating the correction and trying a reserve"
            self._tell(f"{winner.name}: {describe_broken(figures)}; {next_step}")
            fitting = self._feasible(self._updated_model(), left)
            following = next(fitting, None) if len(replaced) <= most else None
            if following is None:
                raise _nothing_left(winner, replaced, self.run.device.name)
            left = [reserve for reserve in left if reserve.name != following.name]
            candidate = following

    def _tell(self, text: str) -> None:
        self.run.report(Event(self.stage, text))

    def _feasible(self, model: LatencyModel, reserves: Sequence[Winner]) -> Iterator[Winner]:
        """Reserves now predicted within the budgets, best score first, with that prediction."""
        for reserve in reserves:
            prediction = predicted_figures(model.predict(reserve.architecture))
            predicted = reserve.with_latency(self.run.device.name, **prediction)
            if fits_as_predicted(predicted.latency_ms[self.run.device.name]):
                yield predicted

    def _measured(self, winner: Winner, folder: Path) -> Winner:
        """Export the network, with a task the whole model, and measure it on the device."""
        run, head, output = self.run, self.run.head, self.run.config.export.output
        deployable = self.deployable(winner.architecture)
        key, kind = f"winner/{output}/{winner.architecture}", WINNER
        if head is not None:
            key, kind = network_key(WHOLE, run.space, winner.architecture, head), WHOLE
        figures = self._figures(winner, deployable, folder, key, kind)
        return winner.with_latency(run.device.name, **figures)

    def _figures(
        self, winner: Winner, deployable: Deployable, folder: Path, key: str, kind: str
    ) -> dict[str, Any]:
        """Write a network's files and measure it."""
        run, resolution = self.run, deployable.resolution
        export_network(
            deployable.network,
            folder / ONNX_FILE,
            input_shape=(run.device.batch, run.space.in_channels, resolution, resolution),
            output_names=deployable.output_names,
            open_batch=run.config.export.batch == "dynamic",
            metadata=deployable.metadata,
        )
        with (
            contextlib.closing(open_meter(run.device)) as meter,
            open_workloads(run, meter) as files,
        ):
            onnx_path = write_in_format(
                folder,
                files.number_format,
                self.calibration(resolution),
                run.device.batch,
                run.config.export.quantization,
            )
            # A new key each time, so that samples from a busy machine do not persist.
            session = LatencyTable.load(self._table).last_session + 1
            workload = Workload(
                key=f"{key}/{session}",
                onnx_path=onnx_path,
                kind=kind,
                about=about_network(run.space, winner.architecture, run.head),
            )
            return self._time(winner, workload, meter, files)

    @property
    def _table(self) -> Path:
        return self.run.files.table(self.run.device)

    def _time(
        self, winner: Winner, workload: Workload, meter: Meter, files: WorkloadFiles
    ) -> dict[str, Any]:
        """Measure a network; measure a winner again for longer if it seems over budget."""
        path, accept = self._table, self.run.config.profile.accept
        anchors = files.anchors(LatencyTable.load(path))
        for factor in WINNER_ROUNDS:
            if factor > WINNER_ROUNDS[0]:
                time.sleep(SECONDS_BEFORE_SECOND_LOOK)
            table = build_table(
                path,
                spec=self.run.device,
                workloads=[workload],
                meter=meter,
                config=measure_winner(self.run, factor),
                anchors=anchors,
                accept=accept,
            )
            if workload.key in table.errors:
                raise self._cannot_run(winner, table.errors[workload.key])
            figures = measured_figures(table, workload.key)
            measured = winner.with_latency(self.run.device.name, **figures)
            if fits_as_measured(measured.latency_ms[self.run.device.name]):
                break
        if accept:
            tell_speed(table, self.stage, self.run.report)
        return figures

    def _cannot_run(self, winner: Winner, error: str) -> ExportError:
        head = self.run.head
        return ExportError(
            f"{winner.name} ({winner.architecture}) to run on {self.run.device.name}",
            error,
            "If the cause has passed, run the same command again; otherwise choose "
            f"{'' if head is None else other_heads(head)}another device.runtime, "
            "device.precision or space.",
        )

    def _updated_model(self) -> LatencyModel:
        """Refit the correction, now including the measured winners."""
        run, space, head = self.run, self.run.space, self.run.head
        table = load_table(self._table, space, run.device, run.config.profile.accept, head=head)
        model = LatencyModel.from_table(space, table, head=head)
        if model.correction != current_correction(space, table):
            keep_correction(space, table, model.correction)
        if head is not None and model.fit is not None:
            keep_head(space, table, head, model.fit)
        return model


def bounded(chosen: Winners, device: str) -> bool:
    """Whether any winner has a latency budget on a device."""
    return any(has_budgets(winner.latency_ms[device]) for winner in chosen.winners)


def in_turn(
    chosen: Winners,
    device: str,
    most: int,
    find: Callable[[Winner, Sequence[Winner], int], Winner],
) -> Winners:
    """What is found for each winner; what one has used up is not left for the next.

    Args:
        chosen: The winners and reserves of a search.
        device: Name of the device.
        most: How many networks may be replaced in all.
        find: Gets a winner, the reserves that are left, and how many may still be replaced.
    """
    reserves, winners = list(chosen.reserves), []
    for winner in chosen.winners:
        found = find(winner, reserves, most)
        reserves = without(reserves, winner, found, device)
        most -= len(found.replaced)
        winners.append(found)
    return replace(chosen, winners=tuple(winners), reserves=tuple(reserves))


def without(reserves: Sequence[Winner], winner: Winner, found: Winner, device: str) -> list[Winner]:
    """The reserves that are left for others, after `found` has taken the place of a winner."""
    used_up = [found.architecture, *(former["architecture"] for former in found.replaced)]
    return [
        reserve
        for reserve in reserves
        if not any(dict(reserve.architecture) == dict(each) for each in used_up)
        or not _same_budgets(reserve, winner, device)
    ]


def _same_budgets(reserve: Winner, winner: Winner, device: str) -> bool:
    return have_same_budgets(reserve.latency_ms[device], winner.latency_ms[device])


def _nothing_left(winner: Winner, replaced: list[dict[str, Any]], device: str) -> ExportError:
    """The error when no reserve is within budget; lists the measurements."""
    wanted = describe_budgets(winner.latency_ms[device])
    tried = "; ".join(
        f"{former['name']}: {describe_broken(former['latency_ms'][device])}" for former in replaced
    )
    return ExportError(
        f"a subnet for {winner.name} with {wanted} on {device}",
        f"{len(replaced)} candidate(s) that are too slow ({tried}), and no further reserve that is "
        "predicted to be fast enough, or export.max_replacements reached",
        "The correction has been updated: set more search.reserves and export.max_replacements, or "
        "a higher budget. If the machine was busy, run the same command again when it is idle.",
    )
