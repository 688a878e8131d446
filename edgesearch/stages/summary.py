"""The final comparison: winners, largest and smallest subnet, random weights, raw pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from devices.files import write_json
from edgesearch.data.image_pool import ImagePool
from edgesearch.evaluate.comparison import Comparison, subjects
from edgesearch.inputs import digest_of, read_json
from edgesearch.latency.load_table import corrected_model, load_table
from edgesearch.latency.table import measured_networks
from edgesearch.run.context import IMAGES, WEIGHTS, RunContext
from edgesearch.run.stage import Stage
from edgesearch.search.agreement import make_agreement
from edgesearch.search.winners import Winners
from edgesearch.space import Architecture
from edgesearch.stages.evaluate import make_judge
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


def summarise(run: RunContext) -> list[SummaryRow]:
    """Compare the winners with both ends of the space, random weights and raw pixels.

    "Random weights" are the initial weights of the training, in the largest network. Writes
    `summary/summary.json`.
    """
    with run.writing():
        pool = run.open_images()
        inputs = {
            WEIGHTS: run.weights_digest(),
            run.files.winners.name: digest_of(run.files.winners, "search"),
            IMAGES: pool.digest,
        }
        stage = Stage("summary", run.files.summary, run.decisive("evaluation", "score"), inputs)
        path = stage.folder / "summary.json"

        def work(weights: SupernetWeights) -> list[str]:
            write_json(path, [asdict(row) for row in _rows(run, pool, weights)])
            return [path.name]

        stage.do(run, run.load_weights, work)
        return [SummaryRow(**row) for row in read_json(path, "run")]


def _rows(run: RunContext, pool: ImagePool, weights: SupernetWeights) -> Iterator[SummaryRow]:
    winners = Winners.load(run.files.winners, run.space)
    exported = {f"winner {each.name}": each.latency_ms[run.device.name] for each in winners.winners}
    comparison = Comparison(weights, make_judge(run, pool))
    agreement = make_agreement(weights, pool, run.config.search)
    latencies = _Latencies(run)
    for subject in subjects(run.space, winners.architectures):
        knn = comparison.knn(subject) if pool.has_labels else None
        row = SummaryRow(subject.name, None, knn, *subject.costs(run.space))
        if subject.architecture is None:
            yield row
        elif not subject.trained:
            network = comparison.random.embedder(subject.architecture)
            score = agreement.of_network(network, subject.architecture.resolution)
            yield replace(row, agreement=score)
        else:
            figures = latencies(subject.architecture, exported.get(subject.name))
            yield replace(row, agreement=agreement(subject.architecture), **figures)


class _Latencies:
    """Latency figures of subnets in ms, by field of `SummaryRow`."""

    def __init__(self, run: RunContext) -> None:
        space, device = run.space, run.device
        table = load_table(run.files.table(device), space, device, run.config.profile.accept)
        self._model = corrected_model(space, table)
        self._measured = {each.architecture: each for each in measured_networks(table, space)}

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
