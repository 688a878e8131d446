"""What the run was worth: winners beside the largest, the smallest, chance and raw pixels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from devices import DeviceSpec
from edgesearch.latency import LatencyModel
from edgesearch.search import Agreement
from edgesearch.space import Architecture, SearchSpace
from edgesearch.supernet import SupernetWeights, random_like
from edgesearch.workflow.evaluation import SubnetJudge
from edgesearch.workflow.events import Event, Report, silent
from edgesearch.workflow.image_pool import ImagePool, ImageSource
from edgesearch.workflow.layout import Layout
from edgesearch.workflow.output_folder import digest_of, output_folder, read_json, write_json
from edgesearch.workflow.profile import current_correction, load_table
from edgesearch.workflow.search import SearchImages, make_agreement
from edgesearch.workflow.stage import Stage
from edgesearch.workflow.winners import Winners


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
    knn_k: int = 200,
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
        knn_k: Neighbours of the kNN accuracy.
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
            {"pretrain.knn_k": knn_k, **{f"search.{k}": v for k, v in asdict(looked_at).items()}},
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
                space, device, layout, pool, weights, looked_at, knn_k, seed, accept
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
    knn_k: int
    seed: int
    accept: Collection[str]

    def rows(self) -> list[SummaryRow]:
        """The winners, then what they are compared with."""
        space, looked_at = self.space, self.looked_at
        agreement = make_agreement(self.weights, self.pool, looked_at)
        judge = None
        if self.pool.has_labels:
            judge = SubnetJudge(
                self.pool, self.knn_k, looked_at.calibration_images, looked_at.batch_size
            )
        rows = []
        winners = Winners.load(self.layout.winners, space).winners
        for winner in winners:
            figures = winner.latency_ms[self.device.name]
            row = self._row(f"winner {winner.name}", winner.architecture, agreement, judge)
            rows.append(
                SummaryRow(
                    **{
                        **asdict(row),
                        "predicted_ms": figures["predicted"],
                        "measured_ms": figures["measured_p50"],
                        "budget_ms": figures["budget"],
                        "predicted_p95_ms": figures.get("predicted_p95"),
                        "measured_p95_ms": figures["measured_p95"],
                        "budget_p95_ms": figures.get("budget_p95"),
                    }
                )
            )
        rows.append(self._row("largest", space.largest, agreement, judge))
        rows.append(self._row("smallest", space.smallest, agreement, judge))
        random = random_like(self.weights, self.seed)
        resolution = space.largest.resolution
        rows.append(
            SummaryRow(
                "largest, random weights",
                agreement=agreement.of_network(random.embedder(space.largest), resolution),
                knn=judge.accuracy(_fast(random, space.largest), resolution) if judge else None,
                params=space.params(space.largest),
                macs=space.macs(space.largest),
            )
        )
        rows.append(
            SummaryRow("raw pixels", knn=judge.pixel_accuracy(resolution) if judge else None)
        )
        return rows

    def _row(
        self,
        name: str,
        architecture: Architecture,
        agreement: Agreement,
        judge: SubnetJudge | None,
    ) -> SummaryRow:
        table = load_table(self.layout.table(self.device), self.space, self.device, self.accept)
        model = LatencyModel.from_table(self.space, table, current_correction(self.space, table))
        measured = {
            Architecture.from_dict(network.architecture): network
            for network in table.networks(self.space.space_hash)
        }
        predicted, found = model.predict(architecture), measured.get(architecture)
        network = _fast(self.weights, architecture)
        return SummaryRow(
            name,
            agreement=agreement(architecture),
            knn=judge.accuracy(network, architecture.resolution) if judge else None,
            params=self.space.params(architecture),
            macs=self.space.macs(architecture),
            predicted_ms=predicted.median_ms,
            measured_ms=None if found is None else found.median_ms,
            predicted_p95_ms=predicted.p95_ms,
            measured_p95_ms=None if found is None else found.p95_ms,
        )


def _fast(weights: SupernetWeights, architecture: Architecture) -> torch.nn.Module:
    return weights.subnet(architecture).to(memory_format=torch.channels_last)
