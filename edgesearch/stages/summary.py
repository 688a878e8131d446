"""What the run was worth: winners beside the largest, the smallest, chance and raw pixels."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from devices import DeviceSpec
from edgesearch.data.image_pool import ImagePool, ImageSource
from edgesearch.evaluate.comparison import Comparison, Subject, subjects
from edgesearch.evaluate.judge import EvaluationSettings
from edgesearch.events import Event, Report, silent
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.table import current_correction, measured_networks
from edgesearch.run.layout import Layout
from edgesearch.run.output_folder import digest_of, output_folder, read_json, write_json
from edgesearch.run.stage import Stage, prefixed
from edgesearch.search.agreement import Agreement, ScoreOptions
from edgesearch.search.scoring import make_agreement
from edgesearch.search.winners import Winners
from edgesearch.space import SearchSpace
from edgesearch.stages.profile import load_table
from edgesearch.stages.search import SearchImages
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


def summarise(
    *,
    space: SearchSpace,
    device: DeviceSpec,
    images: ImageSource,
    output_dir: Path,
    looked_at: SearchImages,
    evaluation: EvaluationSettings,
    scored_by: ScoreOptions = ScoreOptions(),  # noqa: B008 (frozen)
    seed: int = 0,
    accept: Collection[str] = (),
    report: Report = silent,
) -> list[SummaryRow]:
    """Compare the winners with the ends of the space, with untrained weights and with raw pixels.

    The untrained weights are those that the training started from, in the largest network.

    Args:
        space: The search space.
        device: Where latencies were measured.
        images: The images of the run.
        output_dir: Has everything; gets `summary/summary.json`.
        looked_at: As in the search.
        evaluation: How the kNN accuracy is computed.
        scored_by: What agreement is, as in the search.
        seed: That of the run.
        accept: Fields in which the table may differ from the device; see `load_table`.
        report: Is told what happens.

    Raises:
        UserError: Something is missing or does not fit.
    """
    with output_folder(output_dir):
        layout = Layout(output_dir)
        pool = ImagePool(images, space.in_channels, seed)
        stage = Stage(
            "summary",
            layout.summary,
            {
                **prefixed("evaluation", asdict(evaluation)),
                **prefixed("search", {**asdict(looked_at), **asdict(scored_by)}),
            },
            {
                "the supernet's weights": digest_of(layout.weights, "pretrain"),
                layout.winners.name: digest_of(layout.winners, "search"),
                "the set of images": pool.digest,
            },
        )
        done, message = stage.begin()
        path = stage.folder / "summary.json"
        if message:
            report(Event("summary", message))
        if not done:
            weights = SupernetWeights.load(layout.weights, space)
            rows = _Summary(
                space, device, layout, pool, weights, looked_at, scored_by, evaluation, accept
            ).rows()
            write_json(path, [asdict(row) for row in rows])
            stage.finish([path.name])
        return [SummaryRow(**row) for row in read_json(path, "run")]


@dataclass(frozen=True)
class _Summary:
    """What all rows need; see `summarise`."""

    space: SearchSpace
    device: DeviceSpec
    layout: Layout
    pool: ImagePool
    weights: SupernetWeights
    looked_at: SearchImages
    scored_by: ScoreOptions
    evaluation: EvaluationSettings
    accept: Collection[str]

    def rows(self) -> list[SummaryRow]:
        """The winners, then what they are compared with."""
        looked_at = self.looked_at
        agreement = make_agreement(self.weights, self.pool, looked_at, self.scored_by)
        comparison = Comparison(
            self.weights,
            self.pool,
            self.evaluation,
            looked_at.calibration_images,
            looked_at.batch_size,
        )
        winners = Winners.load(self.layout.winners, self.space).winners
        rows = [
            self._row(subject, agreement, comparison) for subject in subjects(self.space, winners)
        ]
        for i, winner in enumerate(winners):
            figures = winner.latency_ms[self.device.name]
            rows[i] = replace(
                rows[i],
                predicted_ms=figures["predicted"],
                measured_ms=figures["measured_p50"],
                budget_ms=figures["budget"],
                predicted_p95_ms=figures.get("predicted_p95"),
                measured_p95_ms=figures["measured_p95"],
                budget_p95_ms=figures.get("budget_p95"),
            )
        return rows

    @cached_property
    def _table(self) -> LatencyTable:
        return load_table(self.layout.table(self.device), self.space, self.device, self.accept)

    def _row(self, subject: Subject, agreement: Agreement, comparison: Comparison) -> SummaryRow:
        has_labels = self.pool.has_labels
        knn = comparison.judge.knn(comparison.features(subject)) if has_labels else None
        architecture = subject.architecture
        if architecture is None:
            return SummaryRow(subject.name, knn=knn)
        row = SummaryRow(
            subject.name,
            knn=knn,
            params=self.space.params(architecture),
            macs=self.space.macs(architecture),
        )
        if not subject.trained:
            network = comparison.random.embedder(architecture)
            return replace(row, agreement=agreement.of_network(network, architecture.resolution))
        table = self._table
        model = LatencyModel.from_table(self.space, table, current_correction(self.space, table))
        measured = {
            network.architecture: network
            for network in measured_networks(table, self.space.space_hash)
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
