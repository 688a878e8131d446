"""What the run was worth: winners beside the largest, the smallest, chance and raw pixels."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from devices.files import write_json
from edgesearch.data.image_pool import ImagePool
from edgesearch.evaluate.comparison import Comparison, Subject, subjects
from edgesearch.inputs import digest_of, read_json
from edgesearch.latency.load_table import corrected_model, load_table
from edgesearch.latency.table import measured_networks
from edgesearch.run.context import IMAGES, WEIGHTS, RunContext
from edgesearch.run.stage import Stage
from edgesearch.search.agreement import Agreement, make_agreement
from edgesearch.search.winners import Winners
from edgesearch.supernet.weights import SupernetWeights
from profilers import LatencyTable


@dataclass(frozen=True)
class SummaryRow:
    """One line of the closing table; None where a figure does not apply.

    Attributes:
        name: What the line is about.
        agreement: With the key encoder.
        knn: Accuracy, in 0 … 1; None without labelled images.
        params: Learnable parameters.
        macs: Multiply-accumulates for one image.
        predicted_ms: Predicted median latency.
        measured_ms: Measured median latency.
        budget_ms: Budget of the median latency.
        predicted_p95_ms: Predicted 95th percentile of the latency.
        measured_p95_ms: Measured 95th percentile of the latency.
        budget_p95_ms: Budget of the 95th percentile.
    """

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
    """Compare the winners with the ends of the space, with untrained weights and with raw pixels.

    The untrained weights are those that the training started from, in the largest network.

    Args:
        run: Has everything; gets `summary/summary.json`.

    Raises:
        UserError: Something is missing or does not fit.
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
            write_json(path, [asdict(row) for row in _Summary(run, pool, weights).rows()])
            return [path.name]

        stage.do(run, run.load_weights, work)
        return [SummaryRow(**row) for row in read_json(path, "run")]


@dataclass(frozen=True)
class _Summary:
    """What all rows need."""

    run: RunContext
    pool: ImagePool
    weights: SupernetWeights

    def rows(self) -> list[SummaryRow]:
        """The winners, then what they are compared with."""
        run, looked_at = self.run, self.run.config.search
        agreement = make_agreement(self.weights, self.pool, looked_at)
        comparison = Comparison(
            self.weights,
            self.pool,
            run.config.evaluation,
            looked_at.calibration_images,
            looked_at.batch_size,
        )
        winners = Winners.load(run.files.winners, run.space)
        rows = [
            self._row(subject, agreement, comparison)
            for subject in subjects(run.space, winners.architectures)
        ]
        for i, winner in enumerate(winners.winners):
            figures = winner.latency_ms[run.device.name]
            rows[i] = replace(
                rows[i],
                predicted_ms=figures["predicted"],
                measured_ms=figures["measured_p50"],
                budget_ms=figures["budget"],
                predicted_p95_ms=figures["predicted_p95"],
                measured_p95_ms=figures["measured_p95"],
                budget_p95_ms=figures["budget_p95"],
            )
        return rows

    @cached_property
    def _table(self) -> LatencyTable:
        run = self.run
        path, accept = run.files.table(run.device), run.config.profile.accept
        return load_table(path, run.space, run.device, accept)

    def _row(self, subject: Subject, agreement: Agreement, comparison: Comparison) -> SummaryRow:
        has_labels = self.pool.has_labels
        knn = comparison.judge.knn(comparison.features(subject)) if has_labels else None
        architecture = subject.architecture
        if architecture is None:
            return SummaryRow(subject.name, knn=knn)
        row = SummaryRow(
            subject.name,
            knn=knn,
            params=self.run.space.params(architecture),
            macs=self.run.space.macs(architecture),
        )
        if not subject.trained:
            network = comparison.random.embedder(architecture)
            return replace(row, agreement=agreement.of_network(network, architecture.resolution))
        table = self._table
        model = corrected_model(self.run.space, table)
        measured = {
            network.architecture: network for network in measured_networks(table, self.run.space)
        }
        predicted, found = model.predict(architecture), measured.get(architecture)
        runs = math.isfinite(predicted.median_ms)
        return replace(
            row,
            agreement=agreement(architecture),
            predicted_ms=predicted.median_ms if runs else None,
            measured_ms=None if found is None else found.median_ms,
            predicted_p95_ms=predicted.p95_ms if runs else None,
            measured_p95_ms=None if found is None else found.p95_ms,
        )
