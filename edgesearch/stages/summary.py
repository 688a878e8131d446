"""The final comparison: winners, largest and smallest subnet, random weights, raw pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from devices.files import write_json
from edgesearch.data.image_pool import ImagePool
from edgesearch.evaluate.comparison import Comparison, subjects
from edgesearch.evaluate.judge import SubnetJudge
from edgesearch.events import silent
from edgesearch.inputs import digest_of, read_json
from edgesearch.latency.latency_model import about_latencies
from edgesearch.latency.load_table import corrected_model, load_table
from edgesearch.latency.table import measured_networks
from edgesearch.run.context import IMAGES, WEIGHTS, RunContext
from edgesearch.run.stage import Stage
from edgesearch.search.training_doubt import TrainingCheck
from edgesearch.search.winners import Winners
from edgesearch.space import Architecture
from edgesearch.stages.evaluate import make_judge
from edgesearch.stages.scorer import inputs_of_score, make_scorer
from edgesearch.supernet.weights import SupernetWeights


@dataclass(frozen=True)
class SummaryRow:
    """A row of the final comparison; None where a figure does not apply."""

    name: str
    agreement: float | None = None
    knn: float | None = None
    params: float | None = None
    macs: float | None = None
    predicted_ms: float | None = None
    measured_ms: float | None = None
    budget_ms: float | None = None
    predicted_p95_ms: float | None = None
    measured_p95_ms: float | None = None
    budget_p95_ms: float | None = None


@dataclass(frozen=True)
class LabelledCounts:
    """What the kNN accuracies of the comparison were computed on."""

    train_images: int
    test_images: int
    knn_k: int


@dataclass(frozen=True)
class Summary:
    """The final comparison.

    Attributes:
        labelled: None without labels.
        latency_of: What latencies are of: "backbone", or "whole model" with its head.
    """

    rows: list[SummaryRow]
    labelled: LabelledCounts | None
    latency_of: str = "backbone"

    @property
    def training_doubt(self) -> str | None:
        """Why the supernet seems hardly trained, by the accuracies of the rows; None without."""
        if self.labelled is None:
            return None
        knn = {row.name: row.knn for row in self.rows}
        counts = self.labelled.test_images, self.labelled.train_images
        trained, untrained = knn["largest"], knn["largest, random weights"]
        return TrainingCheck(0.0, trained, untrained, *counts).doubt


def summarise(run: RunContext) -> Summary:
    """Compare the winners with both ends of the space, random weights and raw pixels.

    "Random weights" are the initial weights of the training, in the largest network. A network has
    no agreement with itself, nor have random weights one that would say anything. Writes
    `summary/summary.json`.
    """
    with run.writing():
        pool = run.open_images()
        stage = summary_stage(run, pool)
        path = stage.folder / "summary.json"

        def work(weights: SupernetWeights) -> list[str]:
            judge = make_judge(run, pool)
            rows = list(_rows(run, weights, judge))
            latency_of = about_latencies(run.head)
            write_json(path, asdict(Summary(rows, _labelled(judge, weights), latency_of)))
            return [path.name]

        stage.do(run, run.load_weights, work)
        found = read_json(path, "run")
        labelled = found["labelled"] and LabelledCounts(**found["labelled"])
        rows = [SummaryRow(**row) for row in found["rows"]]
        return Summary(rows, labelled, found["latency_of"])


def summary_stage(run: RunContext, pool: ImagePool) -> Stage:
    """The stage with everything that the comparison depends on."""
    inputs = {
        WEIGHTS: run.weights_digest(),
        run.files.winners.name: digest_of(run.files.winners, "search"),
        IMAGES: pool.digest,
        **inputs_of_score(run),
    }
    settings = run.decisive("evaluation", "score")
    follows = {*settings, *inputs}  # what made these change was asked for
    return Stage("summary", run.files.summary, settings, inputs, cheap=follows)


def _labelled(judge: SubnetJudge, weights: SupernetWeights) -> LabelledCounts | None:
    if not judge.pool.has_labels:
        return None
    images = judge.images(weights.space.largest.resolution)
    train, test = len(images.train_labels), len(images.test_labels)
    return LabelledCounts(train, test, min(judge.settings.knn_k, train))


def _rows(run: RunContext, weights: SupernetWeights, judge: SubnetJudge) -> Iterator[SummaryRow]:
    pool = judge.pool
    winners = Winners.load(run.files.winners, run.space)
    exported = {f"winner {each.name}": each.latency_ms[run.device.name] for each in winners.winners}
    comparison = Comparison(weights, judge)
    agreement = make_scorer(run, weights, pool, silent)
    latencies = _Latencies(run)
    for subject in subjects(run.space, winners.architectures):
        knn = comparison.knn(subject) if pool.has_labels else None
        row = SummaryRow(subject.name, None, knn, *subject.costs(run.space))
        if subject.architecture is None or not subject.trained:
            yield row
            continue
        figures = latencies(subject.architecture, exported.get(subject.name))
        is_reference = subject.architecture == run.space.largest and agreement.refers_to_a_subnet
        score = None if is_reference else agreement(subject.architecture)
        yield replace(row, agreement=score, **figures)


class _Latencies:
    """Latency figures of subnets in ms, by field of `SummaryRow`."""

    def __init__(self, run: RunContext) -> None:
        space, device = run.space, run.device
        accept, head = run.config.profile.accept, run.head
        table = load_table(run.files.table(device), space, device, accept, head=head)
        self._model = corrected_model(space, table, head)
        measured = measured_networks(table, space, head=head)
        self._measured = {each.architecture: each for each in measured}

    def __call__(
        self, architecture: Architecture, exported: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Figures measured by the export if given, otherwise from the table."""
        if exported is not None:
            return {
                "predicted_ms": exported["predicted"],
                "measured_ms": exported["measured_p50"],
                "budget_ms": exported["budget"],
                "predicted_p95_ms": exported["predicted_p95"],
                "measured_p95_ms": exported["measured_p95"],
                "budget_p95_ms": exported["budget_p95"],
            }
        predicted, measured = self._model.predict(architecture), self._measured.get(architecture)
        runs = math.isfinite(predicted.median_ms)
        return {
            "predicted_ms": predicted.median_ms if runs else None,
            "measured_ms": None if measured is None else measured.median_ms,
            "predicted_p95_ms": predicted.p95_ms if runs else None,
            "measured_p95_ms": None if measured is None else measured.p95_ms,
        }
