"""Command compare: the winners against networks that one might have picked anyway."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from devices import DeviceSpec, Fingerprint, OnnxRuntime
from devices.files import next_number, numbered, sha256_of, write_json
from edgesearch.compare.candidates import (
    BASELINE,
    END,
    RANDOM,
    SCALED,
    WINNER,
    Candidate,
    distinct,
    of_latency,
    uniformly_scaled,
)
from edgesearch.compare.results import (
    PLOT,
    RESULTS,
    TABLE,
    ComparedRow,
    CompareResult,
    plot,
    write_csv,
)
from edgesearch.compare.standing import Standing, difference, front, verdict
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import Interrupted, LatencyError, SpaceError, StageError
from edgesearch.events import Event
from edgesearch.export.deployable import write_in_format
from edgesearch.export.engines import ONNX_FILE
from edgesearch.export.verify import TaskImages
from edgesearch.formats.onnx_export import INPUT_NAME, export_network
from edgesearch.formats.precisions import PRECISIONS, precision_of
from edgesearch.inputs import read_json
from edgesearch.latency.budgets import MEDIAN, P95, measured_figures
from edgesearch.latency.load_table import corrected_model, load_table
from edgesearch.run.context import RunContext
from edgesearch.run.stage import Stage
from edgesearch.search.winners import Winners
from edgesearch.stages.finetune import identity_of, open_finetuning, require_task
from edgesearch.tasks.baselines import Baseline
from edgesearch.tasks.finetuner import STATE
from edgesearch.tasks.finetuning import WEIGHTS, Finetuned, Finetuning
from edgesearch.tasks.model import TaskModel
from edgesearch.words import duration_words
from profilers import LatencyTable, Workload, build_table, open_meter
from profilers.errors import TableMismatchError

SIZES = "resolutions.json"
INT8 = "int8"
CANDIDATE = "candidate"
"""Kind of the networks in a comparison's latency table."""
SMALLEST_PX, STEP_PX = 32, 16
"""Smallest resolution that is tried for a baseline, and the distance to the next ones."""
LARGEST = 2.0
"""Largest resolution that is tried for a baseline, as a multiple of the winner's."""
GLANCE = {"rounds": 12, "max_rounds": 24, "interval": 0.1}
"""How the networks are measured from which resolutions are chosen: the steps between these are far
wider than what a longer measurement would tell apart."""


def compare(run: RunContext, *, anew: bool = False) -> CompareResult:
    """Train and measure the winners and other networks alike, and say how they stand.

    Candidates are the winners, both ends of the space, random architectures and the uniformly
    scaled one of the first winner's latency, and known networks (section `compare`). All are
    trained by the recipe of section `finetune`, with several seeds, and measured with their heads
    in turn, in one session. Writes `compare/`. Finished trainings are kept: further baselines or
    seeds only add to them.

    Args:
        run: The run.
        anew: Set aside trainings of other settings or images even if they took long.

    Raises:
        StageError: No task is configured, there are no winners; or without `anew`, there are
            trainings of other settings.
        SpaceError: There is no baseline of a name.
    """
    require_task(run)
    _require_one_recipe(run)
    with run.writing():
        pool = run.open_images()
        baselines = _baselines(run)
        candidates, same, notes = _of_the_space(run)
        finetuning = open_finetuning(run, pool)
        finetuning.images  # noqa: B018  # refuses what cannot be trained
        dense = finetuning.record.head_class(run.config.finetune.head).dense
        for each in baselines:
            each.backbone(_largest_tried(run, candidates[0]), dense=dense, seed=0)
        stage = compare_stage(run, pool)
        run.require_lock()
        stage.take_back(run.teller("compare"))
        stage.check_loss(anew)
        run.keep_config()
        if message := stage.begin():
            run.report(Event("compare", message))
        for note in (*finetuning.images.notices, *notes):
            run.report(Event("compare", note))
        run.set_threads("finetune")
        try:
            comparing = _Comparing(run, finetuning, stage.settings)
            result = comparing.result(candidates, baselines, same)
        except KeyboardInterrupt:
            raise Interrupted("comparison stopped; finished trainings are kept") from None
        stage.finish([RESULTS, TABLE, PLOT])
        return result


def compare_stage(run: RunContext, pool: ImagePool) -> Stage:
    """The stage with what every training depends on; the candidates may change."""
    settings, inputs = identity_of(run, pool)
    return Stage("compare", run.files.compare, settings, inputs)


def _require_one_recipe(run: RunContext) -> None:
    """Refuse a recipe that known networks cannot share.

    Raises:
        StageError: The largest subnet teaches.
    """
    if run.config.finetune.distill:
        raise StageError(
            "one recipe for all networks of a comparison",
            f"finetune.distill {run.config.finetune.distill:g}: known networks would not learn so",
            "Set finetune.distill=0.",
        )


def _baselines(run: RunContext) -> list[Baseline]:
    settings = run.config.compare
    for name in settings.weights:
        if name not in settings.baselines:
            raise StageError(
                "weights of the baselines in compare.weights",
                f"those of {name}, which is not among compare.baselines",
                f"Add {name} to compare.baselines, or leave out its weights.",
            )
    channels, weights = run.space.in_channels, settings.weights
    return [Baseline.find(name, weights.get(name), channels) for name in settings.baselines]


def _of_the_space(run: RunContext) -> tuple[list[Candidate], dict[str, str], list[str]]:
    """The architectures to compare, the winners first; see `distinct`. And what to tell."""
    space, settings, notes = run.space, run.config.compare, []
    winners = Winners.load(run.files.winners, space).architectures
    found = [Candidate.subnet(name, WINNER, each) for name, each in winners.items()]
    if settings.ends:
        found += [Candidate.subnet(n, END, getattr(space, n)) for n in ("largest", "smallest")]
    if settings.scaled or settings.random:
        accept = run.config.profile.accept
        path, head = run.files.table(run.device), run.head
        table = load_table(path, space, run.device, accept, "compare", run.report, head=head)
        model = corrected_model(space, table, head)
        wanted_ms = model.predict(found[0].architecture or space.largest).median_ms
        if settings.scaled:
            scaled = uniformly_scaled(space, model.predict_all, wanted_ms)
            found.append(Candidate.subnet("scaled", SCALED, scaled))
        known = [each.architecture for each in found if each.architecture is not None]
        drawn = of_latency(
            space, model.predict_all, wanted_ms, settings.random, run.config.seed, known
        )
        found += [Candidate.subnet(f"random {n}", RANDOM, each) for n, each in enumerate(drawn, 1)]
        if len(drawn) < settings.random:
            notes.append(
                f"only {len(drawn)} of {settings.random} random architectures: the space has no "
                f"more of about {wanted_ms:.3f} ms"
            )
    kept, same = distinct(found)
    notes += [f"{name} is the architecture of {other}" for name, other in same.items()]
    return kept, same, notes


@dataclass(frozen=True)
class _Comparing:
    """Chooses resolutions, trains, converts and measures.

    Attributes:
        identity: What every training depends on.
    """

    run: RunContext
    finetuning: Finetuning
    identity: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return self.run.files.compare

    @property
    def _precisions(self) -> list[str]:
        """The device's precision, and int8 if asked for."""
        further = [INT8] if self.run.config.compare.int8 else []
        return list(dict.fromkeys([self.run.device.precision, *further]))

    def result(
        self, subnets: Sequence[Candidate], baselines: Sequence[Baseline], same: dict[str, str]
    ) -> CompareResult:
        """The whole comparison; see `compare`."""
        for precision in self._precisions:  # before hours of training
            self._number_format(precision)
        known, left_out = self._sized(subnets[0], baselines)
        candidates = [*subnets, *known]
        trained = self._train(candidates)
        for candidate in candidates:
            self._write(candidate)
        own, table = self.run.device, self._measure(candidates, self.run.device)
        in_int8 = None
        if self._precisions[1:]:
            in_int8 = self._measure(candidates, replace(own, precision=INT8))
        lost = {
            each.name: table.errors[each.folder]
            for each in candidates
            if each.folder in table.errors
        }
        left_out |= {name: f"the runtime cannot run it: {why}" for name, why in lost.items()}
        measured = [each for each in candidates if each.name not in lost]
        if measured[:1] != candidates[:1]:
            raise LatencyError(
                f"{candidates[0].name} with its head on {own.name}",
                lost[candidates[0].name],
                "Choose another finetune.head, runtime or precision.",
            )
        return self._judged(measured, trained, table, in_int8, same, left_out)

    def _judged(
        self,
        candidates: Sequence[Candidate],
        trained: Mapping[str, Sequence[Finetuned]],
        table: LatencyTable,
        in_int8: LatencyTable | None,
        same: dict[str, str],
        left_out: dict[str, str],
    ) -> CompareResult:
        """Rows, verdicts and files."""
        run, metric = self.run, self.finetuning.record.metric
        steadiness = table.steadiness({CANDIDATE: run.config.compare.rounds})
        doubt = "" if steadiness.settled else f"{steadiness} (with another compare.rounds)"
        if doubt:
            run.teller("compare")(f"warning: {doubt}")
        standings = {
            each.name: Standing(
                tuple(found.figures[metric] for found in trained[each.folder]),
                table.median_ms(each.folder),
            )
            for each in candidates
        }
        first, best = candidates[0].name, front(standings)
        judged_int8 = precision_of(run.device).name == INT8 or in_int8 is not None
        rows = []
        for number, each in enumerate(candidates, 1):
            figures, standing = measured_figures(table, each.folder), standings[each.name]
            slow = in_int8 is None or each.folder in in_int8.errors
            row = ComparedRow(
                name=each.name,
                kind=each.kind,
                architecture=None if each.architecture is None else str(each.architecture),
                resolution=each.resolution,
                beginning=self._beginning(each),
                values=standing.values,
                mean=standing.mean,
                deviation=standing.deviation,
                latency_ms=figures[MEDIAN.measured],
                interval_ms=tuple(figures[MEDIAN.interval]),
                p95_ms=figures[P95.measured],
                params=trained[each.folder][0].params,
                size_bytes=self._file(each, precision_of(run.device).name).stat().st_size,
                int8_metric=self._int8_metric(each) if judged_int8 else None,
                int8_latency_ms=None if slow or in_int8 is None else in_int8.median_ms(each.folder),
                on_front=each.name in best,
                ahead=None if each.name == first else difference(standings[first], standing),
            )
            rows.append(row)
            text = f"{row.name}: {metric} {row.mean:.1%} in {row.latency_ms:.3f} ms"
            run.report(Event("compare", text, number, len(candidates)))
        random = [each.name for each in candidates if each.kind == RANDOM]
        winners = [each.name for each in candidates if each.kind == WINNER]
        example = trained[candidates[0].folder][0]
        result = CompareResult(
            task=self.finetuning.record.name,
            head=run.config.finetune.head,
            metric=metric,
            device=run.device.name,
            precision=run.device.precision,
            seeds=run.config.compare.seeds,
            epochs=run.config.finetune.epochs,
            train_images=example.train_images,
            test_images=example.test_images,
            rows=tuple(rows),
            verdicts=tuple(
                verdict(name, standings, metric.replace("_", " "), run.device.name, random)
                for name in winners
            ),
            same=same,
            left_out=left_out,
            doubt=doubt,
            duration_s=sum(each.duration_s for all_ in trained.values() for each in all_),
            results_path=self.folder / RESULTS,
            table_path=self.folder / TABLE,
            plot_path=self.folder / PLOT,
        )
        values = asdict(result)
        for name in ("results_path", "table_path", "plot_path"):
            del values[name]
        write_json(result.results_path, values)
        write_csv(result)
        plot(result)
        return result

    def _beginning(self, candidate: Candidate) -> str:
        supernet = self.finetuning.weights is not None
        return candidate.beginning if candidate.baseline or supernet else "random"

    # Resolutions of known networks.

    def _sized(
        self, winner: Candidate, baselines: Sequence[Baseline]
    ) -> tuple[list[Candidate], dict[str, str]]:
        """The baselines at their resolutions, and the reason for each that has none."""
        if self.run.config.compare.resolution == "same":
            return [_at(each, winner.resolution) for each in baselines], {}
        path, about = self.folder / SIZES, self._about_sizes(winner)
        known = read_json(path, "compare") if path.exists() else {}
        if known.get("about") != about:
            known = {"about": about, "resolutions": {}}
        sizes: dict[str, int | None] = known["resolutions"]
        new = [each for each in baselines if each.name not in sizes]
        if new:
            sizes |= self._fitting(winner, new)
            write_json(path, known)
        found, left_out = [], {}
        for each in baselines:
            size = sizes[each.name]
            if size is None:
                left_out[each.name] = f"slower than {winner.name} even at {SMALLEST_PX} px"
            else:
                found.append(_at(each, size))
        return found, left_out

    def _about_sizes(self, winner: Candidate) -> dict[str, Any]:
        return {
            "winner": winner.folder,
            "head": self.run.config.finetune.head,
            "device": self.run.device.measured_fields,
        }

    def _fitting(self, winner: Candidate, baselines: Sequence[Baseline]) -> dict[str, int | None]:
        """The largest resolution at which each is measured to be at most as slow as the winner."""
        most = _largest_tried(self.run, winner)
        sizes = range(SMALLEST_PX, most + 1, STEP_PX)
        tried = [_at(each, size) for each in baselines for size in sizes]
        self.run.teller("compare")(
            f"looking for the resolutions at which {len(baselines)} baselines are as fast as "
            f"{winner.name}: {len(tried)} networks are measured"
        )
        with tempfile.TemporaryDirectory(prefix="edgesearch-") as name:
            folder, precision = Path(name), self.run.device.precision
            paths = {}
            for number, each in enumerate([winner, *tried]):
                try:
                    own, model = each.ready(replace(self.finetuning, weights=None), 0)
                except SpaceError:  # too small for this network
                    continue
                self._export(own, model, folder / str(number), [precision])
                paths[each.folder] = folder / str(number) / PRECISIONS[precision].file
            table = self._timed(folder / "latency.jsonl", paths, self.run.device, **GLANCE)
        limit, measured = table.median_ms(winner.folder), table.keys(CANDIDATE)
        fast = [
            one for one in tried if one.folder in measured and table.median_ms(one.folder) <= limit
        ]
        return {
            baseline.name: max(
                (one.resolution for one in fast if one.baseline is baseline), default=None
            )
            for baseline in baselines
        }

    # Trainings.

    def _train(self, candidates: Sequence[Candidate]) -> dict[str, list[Finetuned]]:
        """The result of each training, by folder of the candidate."""
        seeds, tell = self.run.config.compare.seeds, self.run.report
        total, begun = seeds * len(candidates), time.monotonic()
        found: dict[str, list[Finetuned]] = {}
        missing = [
            (each, number)
            for each in candidates
            for number in range(seeds)
            if self._known(each, number) is None
        ]
        text = f"{len(candidates)} networks, {seeds} training(s) each"
        if len(missing) < total:
            text += f"; {total - len(missing)} of {total} trainings are finished"
        self.run.teller("compare")(text)
        for done, (each, number) in enumerate(missing):
            left = ""
            if done:
                seconds = (time.monotonic() - begun) / done * (len(missing) - done)
                left = f", about {duration_words(seconds)} left"
            name = f"{each.name} at {each.resolution} px, training {number + 1} of {seeds}"
            tell(Event("compare", f"{name}{left}", total - len(missing) + done + 1, total))
            own, model = each.ready(self.finetuning, self._seed(number))
            own.train(model, self._training(each, number), each.name, self._about(each, number))
            for path in self._training(each, number).glob(f"{Path(STATE).stem}*.pt"):
                path.unlink()  # finished: the weights are kept
        for each in candidates:
            trained = (self._known(each, number) for number in range(seeds))
            found[each.folder] = [result for result in trained if result is not None]
        return found

    def _seed(self, number: int) -> int:
        return self.run.config.seed + number

    def _training(self, candidate: Candidate, number: int) -> Path:
        text = json.dumps(candidate.about, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return self.folder / candidate.folder / f"seed{self._seed(number)}-{digest}"

    def _about(self, candidate: Candidate, number: int) -> dict[str, Any]:
        return {**self.identity, **candidate.about, "seed": self._seed(number)}

    def _known(self, candidate: Candidate, number: int) -> Finetuned | None:
        folder = self._training(candidate, number)
        return self.finetuning.finished(folder, self._about(candidate, number))

    # Files and latencies.

    def _file(self, candidate: Candidate, precision: str) -> Path:
        return self.folder / candidate.folder / PRECISIONS[precision].file

    def _write(self, candidate: Candidate) -> None:
        """The files of a candidate's first training; those that are up to date are kept."""
        folder = self.folder / candidate.folder
        weights, mark = self._training(candidate, 0) / WEIGHTS, folder / "exported.json"
        device, wanted = self.run.device, self._precisions
        about = {
            "weights": sha256_of(weights),
            "device": device.measured_fields,
            "precisions": wanted,
            "quantization": self.run.config.export.quantization,
        }
        if mark.exists() and read_json(mark, "compare") == about:
            return
        own, model = candidate.ready(replace(self.finetuning, weights=None), self._seed(0))
        own.read_weights(model, weights.parent)
        self._export(own, model, folder, wanted)
        write_json(mark, about)

    def _export(
        self,
        finetuning: Finetuning,
        model: TaskModel,
        folder: Path,
        precisions: Collection[str],
    ) -> None:
        """Write a whole network as ONNX files of some precisions."""
        import torch

        size, batch = model.resolution, self.run.device.batch
        folder.mkdir(parents=True, exist_ok=True)
        export_network(
            model.to("cpu").to(memory_format=torch.channels_last).eval(),
            folder / ONNX_FILE,
            input_shape=(batch, finetuning.space.in_channels, size, size),
            output_names=model.output_names,
        )
        for precision in precisions:
            if PRECISIONS[precision].convert is not None:
                calibration = finetuning.calibration(size)
                method = self.run.config.export.quantization
                form = self._number_format(precision)
                write_in_format(folder, form, calibration, batch, method)

    def _number_format(self, precision: str) -> str:
        """The number format that the device runs fastest in a precision."""
        device = replace(self.run.device, precision=precision)
        found = self._machine(device)
        return device.number_format(found.machine, found.instruction_sets)

    def _machine(self, device: DeviceSpec) -> Fingerprint:
        with contextlib.closing(open_meter(device)) as meter:
            return meter.fingerprints[0]

    def _measure(self, candidates: Sequence[Candidate], device: DeviceSpec) -> LatencyTable:
        """Measure all candidates in turn, in a table of its own for these candidates."""
        paths = {each.folder: self._file(each, device.precision) for each in candidates}
        rounds = self.run.config.compare.rounds
        names = "\n".join([*sorted(paths), str(rounds), self.run.config.finetune.head])
        digest = hashlib.sha256(names.encode()).hexdigest()[:8]
        name = f"latency-{device.name}-{device.identity}-{digest}.jsonl"
        return self._timed(self.folder / name, paths, device, rounds=rounds, max_rounds=None)

    def _timed(
        self, path: Path, paths: Mapping[str, Path], device: DeviceSpec, **how: Any
    ) -> LatencyTable:
        profile = self.run.config.profile
        try:
            if path.exists():
                LatencyTable.load(path, expect=device, expect_fingerprint=self._machine(device))
        except TableMismatchError as error:
            kept = path.rename(numbered(path, next_number(path)))
            self.run.teller("compare")(
                f"{error.required}; found: {error.found}: measuring anew; the former latencies are "
                f"kept as {kept}"
            )
        config = replace(profile.measure(self.run.config.seed), **how)
        report = self.run.report
        with contextlib.closing(open_meter(device)) as meter:
            return build_table(
                path,
                spec=device,
                workloads=[Workload(key, file, kind=CANDIDATE) for key, file in paths.items()],
                meter=meter,
                config=config,
                accept=profile.accept,
                on_progress=lambda done, total: report(
                    Event("compare", f"rounds measured in {device.precision}", done, total)
                ),
            )

    def _int8_metric(self, candidate: Candidate) -> float:
        """The metric of the first training's int8 file on the test images, computed here."""
        own = replace(self.finetuning, normalisation=candidate.normalisation)
        task, fitted = own.task(candidate.resolution), own.fitted("test", candidate.resolution)
        images = TaskImages(
            own.record.metric,
            fitted.images,
            task.preprocess.normalise,
            task.predictions,
            lambda found: task.figures(found, fitted.targets[: len(found)])[own.record.metric],
            1.0,
        ).whole_batches(self.run.device.batch)
        session = OnnxRuntime(threads=os.cpu_count() or 1).load(self._file(candidate, INT8))
        try:
            return images.judge(
                lambda pixels: list(session.run({INPUT_NAME: pixels}).values()),
                self.run.device.batch,
            )
        finally:
            session.close()


def _largest_tried(run: RunContext, winner: Candidate) -> int:
    """The largest resolution of baselines, in pixels."""
    if run.config.compare.resolution == "same":
        return winner.resolution
    return max(SMALLEST_PX, int(LARGEST * winner.resolution))


def _at(baseline: Baseline, resolution: int) -> Candidate:
    return Candidate(f"{baseline.name} {resolution} px", BASELINE, resolution, baseline=baseline)
