"""Stage search: finds winners with the supernet, images and latency tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from devices.values import in_yaml
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import StageError
from edgesearch.events import silent
from edgesearch.inputs import read_json
from edgesearch.processes import distributed
from edgesearch.processes.shared_work import TIMEOUT, check_same_in_all, report_processes
from edgesearch.run.context import IMAGES, WEIGHTS, RunContext
from edgesearch.run.files import RECORD
from edgesearch.run.stage import Stage
from edgesearch.search.agreement import Agreement, make_agreement
from edgesearch.search.search import Search, SharedScores, says_where
from edgesearch.search.tables import Tables
from edgesearch.search.winners import Winners
from edgesearch.supernet.weights import SupernetWeights

OUTPUTS = (
    "trials.jsonl",
    "pareto.json",
    "pareto.png",
    "ranking.json",
    "chosen.json",
    "../winners.json",
)


@dataclass(frozen=True)
class SearchResult:
    """Result of `search`.

    Attributes:
        latency_budget_ms: Budget of the median latency: a number, a list, or a dict with min and
            max; None if unbounded.
        latency_p95_budget_ms: Budget of the 95th percentile: a number or a dict with min and max;
            None if unbounded.
        estimated_from: Sample size that these numbers are estimated from; None if they are exact.
        settled: Whether the order of the winners is statistically certain.
        doubts: Why predicted latencies of a device cannot be trusted, by its name.
    """

    winners: Winners
    plot_path: Path
    feasible: int
    size: int
    latency_budget_ms: Any
    latency_p95_budget_ms: Any
    cannot_run: int
    estimated_from: int | None
    images: int
    settled: bool
    skipped: bool
    doubts: dict[str, str]


def search(run: RunContext) -> SearchResult:
    """Find the architectures of highest agreement within the budgets.

    Writes `search/` and `winners.json`. Resumes where it was stopped; does nothing if finished.
    Under `torchrun` the processes share the candidates of each batch; only the first proposes,
    writes and reports. The result does not depend on the number of processes if each has the same
    number of threads.

    Raises:
        InfeasibleError: No architecture meets the budgets.
    """
    with distributed.processes(TIMEOUT, run.teller("search")):
        if distributed.rank() > 0:
            return _help(run)
        with run.writing():
            budgets = run.config.search.budgets
            tables = Tables.load(
                run.files.table,
                run.space,
                run.device,
                budgets.further_devices().values(),
                run.config.profile.accept,
                run.report,
            )
            weights, pool, inputs = _scored_with(run)
            scored = {**run.decisive("score"), **inputs}
            stage = Stage(
                "search",
                run.files.search.folder,
                run.decisive("device", "search"),
                {**tables.digests, **inputs},
            )

            def prepare() -> tuple[Search, SharedScores]:
                feasible = tables.feasible(budgets)
                scorer = _scorer(run, weights, pool)
                scores = SharedScores(scorer)
                search = Search(
                    feasible,
                    run.config.search,
                    run.files.search,
                    scores,
                    first_images=scorer.batch_size,
                    most_images=scorer.images,
                    scored_with=scored,
                    seed=run.config.seed,
                    report=run.report,
                )
                return search, scores

            def work(prepared: tuple[Search, SharedScores]) -> Sequence[str]:
                search, scores = prepared
                search.run().save(run.files.winners)
                scores.done()
                return OUTPUTS

            skipped = stage.do(run, prepare, work)
            return distributed.of_first(_result(run, skipped, tables.doubts))


def _result(run: RunContext, skipped: bool, doubts: dict[str, str]) -> SearchResult:
    facts = read_json(run.files.search.pareto, "search")
    ranking = read_json(run.files.search.ranking, "search")
    return SearchResult(
        winners=Winners.load(run.files.winners, run.space),
        plot_path=run.files.search.pareto_plot,
        feasible=facts["feasible"],
        size=run.space.size,
        latency_budget_ms=facts["latency_budget_ms"],
        latency_p95_budget_ms=facts["latency_p95_budget_ms"],
        cannot_run=facts["cannot_run"],
        estimated_from=facts["estimated_from"],
        images=ranking["images"],
        settled=ranking["settled"],
        skipped=skipped,
        doubts=doubts,
    )


def _scored_with(run: RunContext) -> tuple[SupernetWeights, ImagePool, dict[str, str]]:
    """The supernet, the images, and digests of both; checks that all processes have the same."""
    weights, pool = run.load_weights(), run.open_images()
    digests = {WEIGHTS: run.weights_digest(), IMAGES: pool.digest}
    check_same_in_all(digests)
    return weights, pool, digests


def _scorer(run: RunContext, weights: SupernetWeights, pool: ImagePool) -> Agreement:
    run.set_threads()
    report = run.report if distributed.rank() == 0 else silent
    report_processes("search", report)
    return make_agreement(weights, pool, run.config.search, report)


def _help(run: RunContext) -> SearchResult:
    """Score candidates for the first process, and wait for its result."""
    weights, pool, _ = _scored_with(run)
    if not distributed.of_first(False):
        scorer = _scorer(run, weights, pool)
        distributed.of_all(None)
        with says_where(run.files.search):
            SharedScores(scorer).help()
    return cast(SearchResult, distributed.of_first(None))


def check_searched_for(run: RunContext) -> None:
    """Refuse winners that were searched for another device or with another supernet.

    Raises:
        StageError: Names the difference.
    """
    folder = run.files.search.folder
    record = read_json(folder / RECORD, "search")
    if record["inputs"].get(WEIGHTS) != run.weights_digest():
        raise StageError(
            f"winners found with the weights in {run.files.weights}",
            "winners found with other weights",
            "Run `edgesearch search` with the same configuration first.",
        )
    searched = record["settings"]["device"]
    for field, wanted in run.device.measured_fields.items():
        found = searched.get(field)
        if wanted != found:
            raise StageError(
                f"winners for a device with {field} {in_yaml(wanted)} in {folder}",
                f"winners for {field} {in_yaml(found)}",
                "Run `edgesearch search` with the same configuration first.",
            )
